"""A unit file read as systemd reads it: sections, continued lines, quoted words, specifiers.

Source: systemd.syntax(7), systemd.service(5) "Command lines", systemd.unit(5) "Specifiers".
"""

import re
from collections.abc import Iterator

ESCAPES = {"\\\\": "\\", '\\"': '"', "\\'": "'", "\\s": " ", "\\n": "\n", "\\t": "\t"}
WORD = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|([^\s"\']+))(?=\s|$)')


def settings(unit: str) -> Iterator[tuple[str, str, str]]:
    """Section, name and value of every line; anything that is neither is an error."""
    section = ""
    lines = iter(unit.split("\n"))
    for line in lines:
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        while line.endswith("\\"):
            line = line[:-1] + " " + next(lines)
        if found := re.fullmatch(r"\[(\w+)\]", line):
            section = found[1]
            continue
        name, equals, value = line.partition("=")
        assert equals and re.fullmatch(r"[A-Za-z-]+", name) and section, f"no setting: {line!r}"
        yield section, name, value.strip()


def words(value: str) -> list[str]:
    """The words of a command line or an assignment, as the program gets them."""
    found, position = [], 0
    while position < len(value.rstrip()):
        match = WORD.match(value, position)
        assert match, f"systemd would not read {value[position:]!r}"
        assert match[3] != ";", "systemd takes a lone ; for the end of a command"
        text = next(group for group in match.groups() if group is not None)
        found.append(_plain(text))
        position = match.end()
    return found


def _plain(text: str) -> str:
    text = re.sub(r"\\.", lambda escape: ESCAPES[escape[0]], text, flags=re.DOTALL)
    assert "$" not in text, f"systemd would expand {text!r}"
    assert not re.search(r"%", text.replace("%%", "")), f"systemd would expand {text!r}"
    return text.replace("%%", "%")
