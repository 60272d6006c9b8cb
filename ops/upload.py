"""A model's directory on the operator's machine, sent to a host over SSH in pieces, resumed after a cut."""

import base64
import hashlib
import json
import shlex
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import host

from ops import progress
from ops.pins import operators_folder
from ops.remote import Remote, privileges
from ops.waiting import CONNECTION_ERRORS
from plan.host import USER, HostPlan
from plan.model_plan import ModelPlan
from plan.places import place
from plan.probe_models import MANIFEST

PIECE_BYTES = 8 << 20


class NotWrittenError(Exception):
    """The host does not take a file; the text says which."""


@operation()
def send(model: ModelPlan, needed: bool, pulls: Callable[[], bool]) -> Generator[PyinfraCommand, None, None]:
    """Sends the list of the files and, where `pulls`, the files, into the staging directory."""
    if not needed:
        host.noop(f"{model.model} is not sent from here")
        return
    yield FunctionCommand(_send, (model, pulls, privileges()), {})


def _send(
    state: State, host: Host, model: ModelPlan, pulls: Callable[[], bool], given: dict[str, Any]
) -> bool:
    remote = Remote(host, given)
    label = f"sending {model.model}"
    folder = operators_folder(place(model.endpoint), model.model)
    names = wanted_files(folder, model)

    def sent() -> bool:
        if pulls():
            _make_directories(remote, model, names)
            there = already(remote, model.staging, {name: folder / name for name in names})
            _send_files(remote, label, model, folder, names, there)
        return _send_list(remote, model, folder, names)

    return _told(remote, label, sent)


def can_help(plan: HostPlan, model: ModelPlan) -> bool:
    """Whether files that other places do not give rightly may lie on the operator's machine."""
    return any(folder.is_dir() for folder in _folders(plan, model))


def help_out(plan: HostPlan, model: ModelPlan, remote: Remote) -> bool:
    """Sends what a download that has ended asked the operator's machine for; False when it did not."""
    wanted = shlex.quote(f"{model.staging}.wanted")
    label = f"sending {model.model}"

    def helped() -> bool:
        asked = set(remote.run(f"cat {wanted} 2>/dev/null && rm -f {wanted}").text.splitlines())
        for folder in _folders(plan, model):
            # a host gets what lies in the model's directory, whatever it asks for
            names = [name for name in wanted_files(folder, model) if name in asked]
            _make_directories(remote, model, names)
            _send_files(remote, label, model, folder, names, {})
        return bool(asked)

    return _told(remote, label, helped)


def _told(remote: Remote, label: str, work: Callable[[], bool]) -> bool:
    """What the work says; where it breaks off, the operator is told why, and it is False."""
    try:
        return work()
    except NotWrittenError as error:
        progress.failed(remote, label, str(error))
    except CONNECTION_ERRORS as error:
        # only a file of this machine has a name
        local = isinstance(error, OSError) and error.filename
        why = f"{error}. Mend that." if local else f"the connection broke ({error})."
        progress.failed(remote, label, f"{why} Run again to go on.")
    finally:
        progress.ended(remote, label)
    return False


def wanted_files(folder: Path, model: ModelPlan) -> list[str]:
    """The paths below the model's directory of what a host shall have of it, in order.

    `include` and `exclude` mean names or paths, as on the host.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    # a directory that was copied from a host has one, which describes it
    return [name for name in names if name != MANIFEST and _wanted(name, model)]


def _wanted(name: str, model: ModelPlan) -> bool:
    def among(patterns: Iterable[str]) -> bool:
        return any(
            fnmatchcase(text, pattern) for pattern in patterns for text in (name, PurePosixPath(name).name)
        )

    return (not model.include or among(model.include)) and not among(model.exclude)


def _folders(plan: HostPlan, model: ModelPlan) -> list[Path]:
    found = [place(text) for text in plan.downloads.places]
    return [operators_folder(each, model.model) for each in found if each.kind == "operator"]


def _make_directories(remote: Remote, model: ModelPlan, names: Iterable[str]) -> None:
    below = {parent for name in names for parent in PurePosixPath(name).parents} - {PurePosixPath()}
    folders = [model.staging, *(f"{model.staging}/{folder}" for folder in sorted(below))]
    remote.run(_made([*_above(model), *folders]))


def _above(model: ModelPlan) -> list[str]:
    return [str(PurePosixPath(model.parent).parent), model.parent]


def _made(folders: list[str]) -> str:
    """The command that makes directories; each is named, since those that it makes on the way are root's."""
    return f"install -d -o {USER} -g {USER} {shlex.join(folders)}"


def _send_files(
    remote: Remote, label: str, model: ModelPlan, folder: Path, names: list[str], there: dict[str, int]
) -> None:
    meter = progress.Meter(sum((folder / name).stat().st_size for name in names))
    for name in names:
        offset = there.get(name, 0)
        meter.skip(offset)
        for start, piece in pieces(folder / name, offset):
            append(remote, f"{model.staging}/{name}", start, piece)
            meter.add(len(piece))
            progress.tell(remote, label, meter.text)


@operation()
def send_file(source: str | None, target: str, needed: bool) -> Generator[PyinfraCommand, None, None]:
    """Sends one file, whose name on the host begins with its sha256; nothing, when there is no source."""
    if source is None or not needed:
        host.noop(f"{target} is not sent from here")
        return
    yield FunctionCommand(_send_file, (Path(source).expanduser(), target, privileges()), {})


def _send_file(state: State, host: Host, source: Path, target: str, given: dict[str, Any]) -> bool:
    remote, label = Remote(host, given), f"sending {source.name}"
    file, part, sha256 = shlex.quote(target), f"{target}.part", target.rpartition("/")[2].partition(".")[0]
    there = (
        f"if [ -f {file} ]; then echo whole; else stat -c %s {shlex.quote(part)} 2>/dev/null || echo 0; fi"
    )
    placed = (
        f"case $(sha256sum <{shlex.quote(part)}) in "
        f"{sha256}*) sync {shlex.quote(part)} && mv -f {shlex.quote(part)} {file} ;; "
        f"*) rm -f {shlex.quote(part)}; exit 1 ;; esac"
    )

    def sent() -> bool:
        found = remote.run(there).text.strip()
        if found == "whole":
            return True
        meter = progress.Meter(source.stat().st_size)
        offset = min(int(found or 0), source.stat().st_size)
        meter.skip(offset)
        for start, piece in pieces(source, offset):
            append(remote, part, start, piece)
            meter.add(len(piece))
            progress.tell(remote, label, meter.text)
        if not remote.run(placed).ok:
            raise NotWrittenError("what came is not what was sent: was it changed meanwhile? Run again.")
        return True

    return _told(remote, label, sent)


def already(remote: Remote, folder: str, sources: Mapping[str, Path]) -> dict[str, int]:
    """Path below the folder -> bytes of it that the host has, where these are what the source begins with.

    What an earlier run sent of another file by that name is no beginning of this one.
    """
    entry = 'echo "$(stat -c %s "$file") $(sha256sum <"$file" | cut -c 1-64) $file"'
    look = f"find . -type f -exec sh -c {shlex.quote(f'for file; do {entry}; done')} sh {{}} +"
    text = remote.run(f"cd {shlex.quote(folder)} && {look}").text
    found = {}
    for size, digest, path in (line.split(" ", 2) for line in text.splitlines()):
        name = path.removeprefix("./")
        if name in sources and _beginning(sources[name], int(size)) == digest:
            found[name] = int(size)
    return found


def _beginning(path: Path, size: int) -> str | None:
    """The sha256 of a file's first bytes; None when it has fewer."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while size > 0 and (piece := stream.read(min(size, PIECE_BYTES))):
            digest.update(piece)
            size -= len(piece)
    return None if size else digest.hexdigest()


def pieces(path: Path, offset: int) -> Iterator[tuple[int, bytes]]:
    """The rest of a file from a byte on, each piece with its place; of an empty one, an empty piece."""
    with path.open("rb") as stream:
        stream.seek(offset)
        if not path.stat().st_size:
            yield 0, b""
        while piece := stream.read(PIECE_BYTES):
            yield offset, piece
            offset += len(piece)


def append(remote: Remote, target: str, start: int, piece: bytes, owner: str = USER) -> None:
    """Writes a piece of a file from a byte on, as `owner`.

    Raises:
        NotWrittenError: the host cannot.
    """
    file = shlex.quote(target)
    # what stands there may be a file of a published model, too, linked; what a cut piece left goes first
    anew = "" if start else f"rm -f {file} && "
    script = (
        f'install -d -o {owner} -g {owner} "$(dirname {file})" && {anew}touch {file} && '
        f"truncate -s {start} {file} && base64 -d >>{file} && "
        f"[ $(stat -c %s {file}) = {start + len(piece)} ] && chown {owner}:{owner} {file}"
    )
    if not remote.run(script, base64.b64encode(piece).decode()).ok:
        raise NotWrittenError(f"{target} cannot be written: is the disk full? Run again to go on.")


def _send_list(remote: Remote, model: ModelPlan, folder: Path, names: list[str]) -> bool:
    files = {}
    for name in names:
        with (folder / name).open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        files[name] = {"size": (folder / name).stat().st_size, "sha256": sha256}
    list_file = shlex.quote(f"{model.staging}.json")
    script = f"{_made(_above(model))} && base64 -d >{list_file} && chown {USER}:{USER} {list_file}"
    return remote.run(script, base64.b64encode(json.dumps(files).encode()).decode()).ok
