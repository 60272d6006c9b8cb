"""Templates, rendered on the operator's machine."""

import re
import shlex
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).parent.parent / "templates"

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    # what lands on hosts is configuration, never HTML; values are validated by plan.settings
    autoescape=False,
)


def unit_word(value: str) -> str:
    """One word of a systemd command or assignment, quoted so that systemd hands on exactly this text."""
    if set(value) & set("\n\0$"):
        raise ValueError(f"a unit cannot hold {value!r}")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if re.fullmatch(r"[A-Za-z0-9_./:=@,+%-]+", escaped) else f'"{escaped}"'


_environment.filters["unit_word"] = unit_word
_environment.filters["shell_word"] = shlex.quote


def render(name: str, **values: Any) -> str:
    """The text of `templates/NAME` with these values.

    Raises:
        jinja2.TemplateError: the template is wrong or asks for a value that is not given.
    """
    return _environment.get_template(name).render(**values)
