"""The planned Python packages of an environment, as the files that uv reads: a project, and constraints."""

from collections.abc import Iterator

from plan.host import EnvironmentPlan


def text(environment: EnvironmentPlan) -> str:
    """The project file: an extra per part, and the index that alone may provide a distribution."""
    return "\n".join([*_lines(environment), ""])


def constraints(environment: EnvironmentPlan) -> str:
    """The constraints file: what the pins bring along, one version a line."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(environment.constraints.items()))


def _lines(environment: EnvironmentPlan) -> Iterator[str]:
    yield (
        f'# The planned Python packages of the environment "{environment.name}". '
        "Written by bringup; edits are overwritten."
    )
    yield from ("[project]", f'name = "{environment.name}"', 'version = "0"')
    yield f'requires-python = ">={environment.python}"'
    yield from ("", "[project.optional-dependencies]")
    for part, pins in environment.pins.items():
        yield f"{part} = ["
        yield from (f'    "{name}=={version}",' for name, version in pins.items())
        yield "]"
    for name, url in environment.only_from.items():
        yield from ("", "[[tool.uv.index]]", f'name = "{name}"', f'url = "{url}"', "explicit = true")
    yield from ("", "[tool.uv.sources]")
    yield from (f'{name} = [{{ index = "{name}" }}]' for name in environment.only_from)
