"""Files and directories: compared with what the probe saw, written together in one round trip."""

import base64
import hashlib
import shlex
from collections.abc import Container, Generator, Iterable, Mapping
from dataclasses import dataclass, field

from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host

from plan.probe import Path

_DIGITS = 3


@dataclass(frozen=True)
class File:
    """A text file as it shall be. `mode` is octal text, `owner` is `user:group`."""

    path: str
    text: str = field(repr=False)
    mode: str = "644"
    owner: str = "root:root"

    def differs(self, seen: Path | None) -> bool:
        """Whether the host's file has another content, mode or owner, or is none."""
        wanted = (self.mode, self.owner, "f", hashlib.sha256(self.text.encode()).hexdigest())
        return seen is None or (seen.mode, seen.owner, seen.kind, seen.sha256) != wanted


@dataclass(frozen=True)
class Directory:
    """A directory as it shall be."""

    path: str
    mode: str = "755"
    owner: str = "root:root"

    def differs(self, seen: Path | None) -> bool:
        """Whether the host's directory has another mode or owner, or is none."""
        return seen is None or (seen.mode, seen.owner, seen.kind) != (self.mode, self.owner, "d")


# Host -> path -> the file as this run means it to be, whether or not it had to be written.
_meant: dict[str, dict[str, File]] = {}


def meant(host_name: str) -> Mapping[str, File]:
    """The files that this run's operations, so far, want on a host."""
    return _meant.get(host_name, {})


def mean(file: File) -> None:
    """Says that this run wants a file which no `write` puts there."""
    _meant.setdefault(host.name, {})[file.path] = file


@operation()
def write(
    files: Iterable[File],
    seen: Mapping[str, Path],
    check: str | None = None,
    mark: str | None = None,
    keep: str | None = None,
    lasting: bool = True,
) -> Generator[StringCommand, None, None]:
    """Puts the files that differ in place, each by a rename, all in one command.

    The contents travel on standard input, so that no secret stands in a process list or a log.

    Args:
        files: as they shall be.
        seen: what the probe saw.
        check: a shell command that must succeed before any of them takes its place; until then they lie
            beside, with `.new` behind their names.
        mark: a shell command that is run before any of them takes its place: what it leaves tells the next
            run, should this one be cut, that they are new to who reads them.
        keep: a directory that gets what they replace.
        lasting: False for what this run alone needs, such as a program that removes something.
    """
    wanted = list(files)
    if lasting:
        _meant.setdefault(host.name, {}).update((file.path, file) for file in wanted)
    changed = [file for file in wanted if file.differs(seen.get(file.path))]
    if not changed:
        host.noop("the files are as planned")
        return
    lay = [
        f"install -D -m {file.mode} -o {user} -g {group} -- {number:0{_DIGITS}} "
        f"{shlex.quote(file.path + '.new')}"
        for number, file in enumerate(changed)
        for user, group in [file.owner.split(":")]
    ]
    kept = [
        f"if [ -f {path} ]; then install -D -m 600 -- {path} {shlex.quote(f'{keep}/{name}')}; fi"
        for file in changed
        for path, name in [(shlex.quote(file.path), file.path.rpartition("/")[2])]
        if keep
    ]
    move = [f"mv -fT -- {shlex.quote(file.path + '.new')} {shlex.quote(file.path)}" for file in changed]
    marked = [mark] if mark else []
    if check:
        news = " ".join(shlex.quote(file.path + ".new") for file in changed)
        steps = [*lay, f"{{ {check} || {{ rm -f -- {news}; exit 1; }}; }}", *marked, *kept, *move]
    else:
        steps = [*marked, *kept, *(step for pair in zip(lay, move, strict=True) for step in pair)]
    # the scratch directory is root's alone: a secret is never readable on its way
    scratch = 'umask 077; new=$(mktemp -d) && trap \'rm -rf "$new"\' EXIT && cd "$new"'
    # a line a file; the smallest systems have no tar
    unpack = f"SHELL=/bin/sh split -l 1 -a {_DIGITS} -d --filter='base64 -d >$FILE' - ''"
    steps = [scratch, unpack, "umask 022", *steps]
    yield StringCommand(" && ".join(steps), _stdin=[_line(file) for file in changed])


def _line(file: File) -> str:
    return base64.b64encode(file.text.encode()).decode()


@operation()
def directories(wanted: Iterable[Directory], seen: Mapping[str, Path]) -> Generator[str, None, None]:
    """Makes the directories that are missing and mends owner and mode, all in one command."""
    changed = [directory for directory in wanted if directory.differs(seen.get(directory.path))]
    if not changed:
        host.noop("the directories are as planned")
        return
    yield " && ".join(
        f"install -d -m {directory.mode} -o {user} -g {group} -- {shlex.quote(directory.path)}"
        for directory in changed
        for user, group in [directory.owner.split(":")]
    )


@operation()
def absent(paths: Iterable[str], seen: Container[str]) -> Generator[str, None, None]:
    """Removes files that are there."""
    there = [path for path in paths if path in seen]
    if not there:
        host.noop("the files are gone")
        return
    yield f"rm -rf -- {' '.join(shlex.quote(path) for path in there)}"
