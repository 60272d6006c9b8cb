"""A model's directory on the operator's machine, sent to a host over SSH in pieces, resumed after a cut."""

import base64
import hashlib
import json
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
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

PIECE_BYTES = 8 << 20


@operation()
def send(model: ModelPlan, needed: bool, pulls: Callable[[], bool]) -> Generator[PyinfraCommand, None, None]:
    """Sends the list of the files and, where this host pulls, the files, into the staging directory."""
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
    paths = _files(folder)
    try:
        if pulls():
            staging = shlex.quote(model.staging)
            remote.run(f"install -d -o {USER} -g {USER} {shlex.quote(model.parent)} {staging}")
            there = already(remote, model.staging, {str(path.relative_to(folder)): path for path in paths})
            _send_files(remote, label, model, folder, paths, there)
        return _send_list(remote, model, folder, paths)
    except CONNECTION_ERRORS as error:
        progress.failed(remote, label, f"the connection broke ({error}). Run again to go on.")
        return False
    finally:
        progress.ended(remote, label)


def can_help(plan: HostPlan, model: ModelPlan) -> bool:
    """Whether files that other places do not give rightly may lie on the operator's machine."""
    return any(folder.is_dir() for folder in _folders(plan, model))


def help_out(plan: HostPlan, model: ModelPlan, remote: Remote) -> bool:
    """Sends what a download that has ended asked the operator's machine for; False when it did not."""
    wanted = shlex.quote(f"{model.staging}.wanted")
    label = f"sending {model.model}"
    try:
        names = remote.run(f"cat {wanted} 2>/dev/null && rm -f {wanted}").text.splitlines()
        for folder in _folders(plan, model):
            # a host gets what lies in the model's directory, whatever it asks for
            paths = [path for path in _files(folder) if str(path.relative_to(folder)) in names]
            _send_files(remote, label, model, folder, paths, {})
    except CONNECTION_ERRORS as error:
        progress.failed(remote, label, f"the connection broke ({error}). Run again to go on.")
        return False
    finally:
        progress.ended(remote, label)
    return bool(names)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _folders(plan: HostPlan, model: ModelPlan) -> list[Path]:
    others = [place(text) for text in plan.downloads.places if text != model.endpoint]
    return [operators_folder(each, model.model) for each in others if each.kind == "operator"]


def _send_files(
    remote: Remote, label: str, model: ModelPlan, folder: Path, paths: list[Path], there: dict[str, int]
) -> None:
    total = sum(path.stat().st_size for path in paths)
    meter = progress.Meter(total)
    for path in paths:
        name = str(path.relative_to(folder))
        offset = there.get(name, 0)
        meter.skip(offset)
        for start, piece in pieces(path, offset):
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
    try:
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
        if remote.run(placed).ok:
            return True
        progress.failed(remote, label, "what came is not what was sent: was it changed meanwhile? Run again.")
    except CONNECTION_ERRORS as error:
        progress.failed(remote, label, f"the connection broke ({error}). Run again to go on.")
    finally:
        progress.ended(remote, label)
    return False


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
        OSError: the host cannot.
    """
    file = shlex.quote(target)
    # what a cut piece left behind its beginning goes first
    script = (
        f'install -d -o {owner} -g {owner} "$(dirname {file})" && touch {file} && '
        f"truncate -s {start} {file} && base64 -d >>{file} && "
        f"[ $(stat -c %s {file}) = {start + len(piece)} ] && chown {owner}:{owner} {file}"
    )
    if not remote.run(script, base64.b64encode(piece).decode()).ok:
        raise OSError(f"{target} cannot be written: is the disk full?")


def _send_list(remote: Remote, model: ModelPlan, folder: Path, paths: list[Path]) -> bool:
    files = {}
    for path in paths:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        files[str(path.relative_to(folder))] = {"size": path.stat().st_size, "sha256": sha256}
    parent, list_file = shlex.quote(model.parent), shlex.quote(f"{model.staging}.json")
    owned = f"install -d -o {USER} -g {USER} {parent}"
    script = f"{owned} && base64 -d >{list_file} && chown {USER}:{USER} {list_file}"
    return remote.run(script, base64.b64encode(json.dumps(files).encode()).decode()).ok
