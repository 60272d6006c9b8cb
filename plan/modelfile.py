"""Modelfiles of the operator: read, checked, and what they are made from.

Source: Ollama's Modelfile reference (docs/modelfile.mdx); ParseFile and unquote in its parser/parser.go.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plan.errors import SettingsError
from plan.ollama_settings import TAG

INSTRUCTIONS = {
    "from",
    "parameter",
    "template",
    "system",
    "adapter",
    "license",
    "message",
    "requires",
    "renderer",
    "parser",
}
# A file that the host has from an entry of `models`.
GGUF = re.compile(r"/srv/models/(?!.*/\.\.?/)([A-Za-z0-9][A-Za-z0-9._-]*/){2,8}[A-Za-z0-9._-]+\.gguf")
MOST_BYTES = 256 * 1024
# What divides words; every other blank is part of one.
BLANKS = " \t"
# Instructions with a name before their value.
NAMED = ("parameter", "message")


@dataclass(frozen=True)
class Modelfile:
    """A Modelfile that was checked. `base` is what its FROM names; `files` are all GGUF files it names."""

    text: str
    base: str
    files: tuple[str, ...]

    @property
    def tag(self) -> str | None:
        """The tag to pull before; None when it is made from a file."""
        return None if self.base in self.files else self.base


def read(setting: str, path: str) -> Modelfile:
    """The Modelfile at a path of the operator's machine.

    Raises:
        SettingsError: it is missing, has an unknown instruction, or names what a host will not have.
    """
    file = Path(path).expanduser()
    try:
        data = file.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError([f"{setting}: {file}: {error.strerror}. Correct the path."]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{setting}: {file} is no text in UTF-8. Save it as such."]) from None
    if len(data) > MOST_BYTES or "\0" in text:
        raise SettingsError([f"{setting}: {file} is no Modelfile: it is binary or over 256 KiB. Correct it."])
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError([f"{setting}: {file}: {error}"]) from None


def parse(text: str) -> Modelfile:
    """Checks a Modelfile.

    Raises:
        ValueError: fact and fix, in a sentence each.
    """
    bases, files = [], []
    for number, word, value in _instructions(text):
        if word not in INSTRUCTIONS:
            raise ValueError(f"line {number}: {word.upper()!r} is no instruction. Correct it.")
        if word == "from":
            bases.append(value)
        if word in ("from", "adapter") and (word == "adapter" or "/" in value[:1] or value[:1] == "."):
            if not GGUF.fullmatch(value):
                raise ValueError(
                    f"line {number}: {value!r} is no file that the host will have. Name a GGUF file of an "
                    "entry of `models`, as in /srv/models/ORG/NAME/REVISION/FILE.gguf."
                )
            files.append(value)
    if len(bases) != 1:
        raise ValueError(f"has {len(bases)} FROM lines. Write exactly one.")
    if bases[0] not in files and not TAG.fullmatch(bases[0]):
        raise ValueError(f"FROM {bases[0]!r} is no tag and no file. Write it as in 'FROM qwen2.5:7b'.")
    return Modelfile(text, bases[0], tuple(files))


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, instruction in small letters, value; one in quotes ends where a line ends with them."""
    lines = enumerate(re.split(r"\r\n|\r|\n", text), 1)
    for number, line in lines:
        word, value = _divided(line.strip(BLANKS))
        if not word or word.startswith("#"):
            continue
        if word.lower() in NAMED:
            _, value = _divided(value)
        while _unquoted(value) is None:
            _, more = next(lines, (0, None))
            if more is None:
                raise ValueError(f"line {number}: its quotes are not closed. Close them.")
            value = f"{value}\n{more}".strip()
        yield number, word.lower(), _unquoted(value) or ""


def _divided(text: str) -> tuple[str, str]:
    """The first word, and the rest."""
    word, *rest = re.split(f"[{BLANKS}]+", text, maxsplit=1)
    return word, "".join(rest)


def _unquoted(value: str) -> str | None:
    """A value without its quotes; None while they are open."""
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            closed = value.endswith(quotes) and len(value) >= 2 * len(quotes)
            return value[len(quotes) : -len(quotes)] if closed else None
    return value
