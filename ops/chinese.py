"""What the report says in English, in Chinese: words, names of steps and checks, and sentences about hosts.

`templates/report/chinese.toml` has words as they are, `sentences.toml` sentences with `{names}` for what
differs from host to host. What is in neither has no translation, and stays English: never half a sentence.
A reason may end with what a table says of a release, in the table's words.
"""

import re
from functools import cache
from pathlib import Path

import tomli

TEMPLATES = Path(__file__).parent.parent / "templates" / "report"
_PLACE = re.compile(r"\{(\w+)\}")
# A setting, a path, a unit or a part of the host before the sentence that is about it.
_SUBJECT = re.compile(r"(?P<subject>GPU \S+|[^\s:]+): (?P<rest>\S.*)", re.DOTALL)
_ABOUT = re.compile(r"(?P<words>.+?) \((?P<about>.+)\)")
# What a place stands for never goes on beyond a sentence or a clause.
_ONE = r"(?:(?!\.\s+[A-Z`]|; ).)"
_NEXT_SENTENCE = re.compile(r"(?<=[.])\s+(?=[A-Z`])")


@cache
def translated(text: str) -> str | None:
    """The text in Chinese; None where not all of it is known."""
    return (
        _words().get(text)
        or _about_a_subject(text)
        or _together(_NEXT_SENTENCE.split(text), "")
        or _clauses(text)
        or _sentence(text)
        or _check(text)
    )


@cache
def _words() -> dict[str, str]:
    words: dict[str, str] = tomli.loads((TEMPLATES / "chinese.toml").read_text())["words"]
    return words


@cache
def _sentences() -> list[tuple[re.Pattern[str], str]]:
    """Patterns, the longest first: what says more counts before what is more general."""
    found: dict[str, str] = tomli.loads((TEMPLATES / "sentences.toml").read_text())["sentences"]
    ordered = sorted(found.items(), key=lambda pair: -len(_PLACE.sub("", pair[0])))
    return [(re.compile(_pattern(english), re.DOTALL), chinese) for english, chinese in ordered]


def _pattern(english: str) -> str:
    parts = _PLACE.split(english)
    return "".join(
        f"(?P<{part}>{_ONE}+?)" if number % 2 else re.escape(part) for number, part in enumerate(parts)
    )


def _sentence(text: str) -> str | None:
    for pattern, chinese in _sentences():
        if found := pattern.fullmatch(text):
            inner = {name: (translated(part) or part) for name, part in found.groupdict().items()}
            return chinese.format(**inner)
    return None


def _check(text: str) -> str | None:
    """The name of a check, with what it is about in brackets."""
    found = _ABOUT.fullmatch(text)
    words = _words().get(found["words"]) if found else None
    return f"{words}（{found['about']}）" if found and words else None


def _about_a_subject(text: str) -> str | None:
    found = _SUBJECT.fullmatch(text)
    rest = translated(found["rest"]) if found else None
    return f"{found['subject']}：{rest}" if found and rest else None


def _clauses(text: str) -> str | None:
    """A reason: what it is, then further clauses, of which those that tables bring stay as they are."""
    first, *others = text.split("; ")
    known = translated(first) if others else None
    return "；".join([known, *(translated(other) or other for other in others)]) if known else None


def _together(parts: list[str], between: str) -> str | None:
    """All parts, each of which has to be known by itself."""
    if len(parts) < 2:
        return None
    chinese = [translated(part) for part in parts]
    return between.join(part for part in chinese if part) if all(chinese) else None
