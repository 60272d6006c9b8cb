"""What the operator writes, merged over all, groups and host, and validated by the sections' strict models.

Every value that later reaches a shell, a template or a unit file is typed and matched against a pattern
in `plan.sections`, so that nothing behind this module has to distrust it.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from plan.contradictions import contradictions
from plan.errors import SettingsError
from plan.sections import Download, Service, Settings

__all__ = ["Settings", "merge", "own", "read"]

# What else an inventory may hold: pyinfra's own data (connection, privileges), by prefix.
_PYINFRA_DATA = re.compile(r"^(_|ssh_|local_|chroot_|docker_|dockerssh_|winrm_|relock$)")


def merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merges data layers key by key, later over earlier; lists and scalars replace, mappings merge.

    `sources` may be a preset's name; it counts as `{"preset": name}`.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if key == "sources" and isinstance(value, str):
                value = {"preset": value}
            old = merged.get(key)
            if isinstance(old, Mapping) and isinstance(value, Mapping):
                merged[key] = merge([old, value])
            else:
                merged[key] = value
    return merged


def own(data: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of merged data, without what is pyinfra's own."""
    return {key: value for key, value in data.items() if not _PYINFRA_DATA.match(key)}


def read(layers: Iterable[Mapping[str, Any]]) -> Settings:
    """Validates the merged data of one host.

    Args:
        layers: inventory data, `all` first, then groups, then the host.

    Raises:
        SettingsError: one sentence per wrong setting (setting, fact, fix).
    """
    data = own(merge(layers))
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        # a value that fits no member of a union is reported once per member: the last one says it best
        by_setting = {tuple(_steps(item["loc"])): _sentence(dict(item)) for item in error.errors()}
        raise SettingsError(list(by_setting.values())) from None
    problems = list(contradictions(settings))
    if problems:
        raise SettingsError(problems)
    return settings


def _steps(location: Iterable[int | str]) -> list[str]:
    """The steps to a setting from pydantic's location, which names union members and keys too."""
    noise = re.compile(r"\[key\]|bool|int|float|str|list\[.*\]|constrained-.*|function-.*")
    steps = [str(part) for part in location if not noise.fullmatch(str(part))]
    # entries of `models` stand beside the section's own settings
    return ["models", *steps[2:]] if steps[:2] == ["models", "downloads"] else steps


def _sentence(error: Mapping[str, Any]) -> str:
    """One pydantic error as `setting: fact. fix.`"""
    location = _steps(error["loc"])
    setting = ".".join(location) or "settings"
    if error["type"] == "extra_forbidden":
        known = _known_names(location[:-1])
        close = difflib.get_close_matches(location[-1], known, cutoff=0.5)
        # two letters that changed places are likelier than one that is missing
        close.sort(key=lambda name: sorted(name) != sorted(location[-1]))
        hint = f" Did you mean `{close[0]}`?" if close else f" Known here: {', '.join(known)}."
        return f"{setting}: there is no such {'setting' if len(location) > 1 else 'section'}.{hint}"
    if error["type"] == "missing":
        return f"{setting}: is missing. Set it, for example {_example(location)!r}."
    fix = _fix_of_name(location) if "[key]" in error["loc"] else _fix(location)
    if error["type"] == "string_pattern_mismatch":
        return f"{setting}: {_shown(error['input'])} has signs or a form not allowed here. {fix}"
    return f"{setting}: {_shown(error['input'])} is not valid: {_said(error['msg'])}. {fix}"


def _shown(value: object) -> str:
    """A value as it may be told: without the password that an address holds."""
    return re.sub(r"://[^/@\s]+@", "://...@", repr(value))


def _said(message: str) -> str:
    """pydantic's words, without those of its own world."""
    text = message.removeprefix("Value error, ").rstrip(".")
    text = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping", text)
    return text[:1].lower() + text[1:]


def _section_at(location: list[str]) -> type[BaseModel] | None:
    """The model that describes the settings below a location."""
    entries: dict[str, type[BaseModel]] = {"serve": Service}
    if location[:1] == ["models"] and "/" in "".join(location[1:2]):
        entries["models"] = Download
    section: type[BaseModel] | None = Settings
    if location[:1] and location[0] in entries:
        section, location = entries[location[0]] if len(location) > 1 else None, location[2:]
    for step in location:
        field = section.model_fields.get(step) if section else None
        inner: Any = field.annotation if field else None
        section = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    return section


def _known_names(location: list[str]) -> list[str]:
    section = _section_at(location)
    return [name for name in section.model_fields if name != "downloads"] if section else []


def _field(location: list[str]) -> FieldInfo | None:
    section = _section_at(location[:-1])
    return section.model_fields.get(location[-1]) if section and location else None


def _example(location: list[str]) -> Any:
    field = _field(location)
    return field.examples[0] if field and field.examples else "..."


def _fix_of_name(location: list[str]) -> str:
    """What is wrong is the name of an entry."""
    return (
        f"Use {'organisation/name' if location[0] == 'models' else 'lower-case letters, digits and dashes'}."
    )


def _fix(location: list[str]) -> str:
    if location[:1] == ["serve"] and len(location) <= 2:
        return f"Write serve = {{'NAME': {{'model': {_example(['serve', 'NAME', 'model'])!r}}}}}."
    section = _section_at(location)
    if section and (names := [name for name in section.model_fields if _example([*location, name]) != "..."]):
        return f"Write it as in {{{names[0]!r}: {_example([*location, names[0]])!r}}}."
    # a part of a list or of a mapping is shown with the whole
    for end in range(len(location), 1, -1):
        if (example := _example(location[:end])) != "...":
            return f"Write {'it' if end == len(location) else location[end - 1]} as in {example!r}."
    field = _field(location)
    return (field.description if field else None) or "Correct it."
