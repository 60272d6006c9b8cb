"""docs/settings.md, generated from the settings: `python -m plan.settings_docs >docs/settings.md`."""

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from plan.sections import Download, Service, Settings

HEAD = """# Settings

Generated from `plan/sections/` by `make docs`; do not edit.

A section is the same whether it stands on a host, in a group or in `all`. Sections are merged key by key:
`--data` over host over groups over `all`. Nothing but a model per host is required. A misspelled section or
setting is refused with a suggestion, and so is every value that does not match its type and pattern.
"""


def text() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_sections()])


def _sections() -> Iterator[str]:
    entries: dict[str, type[BaseModel]] = {"serve": Service}
    for name, field in Settings.model_fields.items():
        section = entries.get(name) or _nested(field)
        assert section
        yield from _section(f"{name}.<name>" if name == "serve" else name, section, field.description)
        if name == "models":
            yield from _section("models.<model id>", Download, "One model, under its id on the hub.")


def _section(title: str, section: type[BaseModel], description: str | None) -> Iterator[str]:
    """One table, and one for each section inside it."""
    yield f"## `{title}`\n\n{description}\n"
    yield "| setting | type | default | meaning |\n|---|---|---|---|"
    inner = {name: part for name, field in section.model_fields.items() if (part := _nested(field))}
    for setting, details in section.model_fields.items():
        if details.exclude:
            continue
        kind = f"section, see `{title}.{setting}`" if setting in inner else _type(details.annotation)
        default = "" if setting in inner else _default(details)
        yield f"| `{setting}` | {kind} | {default} | {_meaning(details)} |"
    yield ""
    for setting, part in inner.items():
        yield from _section(f"{title}.{setting}", part, section.model_fields[setting].description)


def _nested(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a setting is, if it is one."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type(part) for part in get_args(annotation) if part is not type(None))
    if origin is list:
        return f"list of {_type(get_args(annotation)[0])}"
    if origin is dict:
        return "mapping"
    return {str: "text", int: "whole number", float: "number", bool: "`True` or `False`"}.get(
        annotation, "text"
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "" if value is None or value in ([], {}, "") else f"`{value}`"


def _meaning(field: FieldInfo) -> str:
    example = f" Example: `{field.examples[0]}`." if field.examples else ""
    return f"{field.description}{example}"


if __name__ == "__main__":
    print(text(), end="")
