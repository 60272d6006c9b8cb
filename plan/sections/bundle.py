"""`bundle`: which host serves the bundle of `sources.bundle` to the others."""

from typing import Annotated

from pydantic import Field, StringConstraints

from plan.sections.base import Section, State

HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9@][A-Za-z0-9._:/@-]{0,252}$")]


class Bundle(Section):
    """Which host serves the bundle to the others of the inventory."""

    serve_from: HostName | None = Field(
        None,
        description="A host of the inventory, by its name there: its nginx serves its directory "
        "(`sources.bundle`) to the other hosts, and to nobody else.",
        examples=["gpu-01.rack1"],
    )
    port: int = Field(9280, ge=1024, le=65535, description="Where it serves it.")
    state: State = Field(
        "present", description="`absent`: the server is stopped and removed; the directory stays."
    )
