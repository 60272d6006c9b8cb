"""A bundle on the operator's machine: checked there, then what a host needs of it is sent over SSH."""

import hashlib
import shlex
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import host

from ops import progress, upload
from ops.remote import Remote, privileges
from ops.waiting import CONNECTION_ERRORS, say
from plan import bundle, bundled
from plan.bundle_plan import BundlePlan
from plan.errors import PlanError

LABEL = "bundle"


@operation()
def send(plan: BundlePlan, wanted: Iterable[str]) -> Generator[PyinfraCommand, None, None]:
    """Sends what the host lacks of these files; refuses when one is damaged, before any is sent."""
    lines = list(wanted)
    if plan.kind != "operator" or not lines:
        host.noop("nothing is sent from here")
        return
    yield FunctionCommand(_send, (plan, lines, privileges()), {})


def _send(state: State, host: Host, plan: BundlePlan, wanted: list[str], given: dict[str, Any]) -> bool:
    remote = Remote(host, given)
    root = Path(plan.place.partition(":")[2]).expanduser()
    try:
        paths = [bundle.INDEX, *_checked(root, wanted)]
        _send_files(remote, plan.directory, root, paths)
        return True
    except PlanError as error:
        say(remote, LABEL, " ".join(error.sentences), logger.error)
        return False
    except upload.NotWrittenError as error:
        progress.failed(remote, LABEL, str(error))
        return False
    except CONNECTION_ERRORS as error:
        progress.failed(remote, LABEL, f"the connection broke ({error}). Run again to go on.")
        return False
    finally:
        progress.ended(remote, LABEL)


def _checked(root: Path, wanted: list[str]) -> list[str]:
    """The paths of the files, each read and found right.

    Raises:
        PlanError: one is missing or damaged.
    """
    try:
        index = bundle.parse((root / bundle.INDEX).read_text())
    except OSError as error:
        raise PlanError([f"bundle: {root}: {error.strerror}. Correct sources.bundle."]) from None
    paths, lacking = bundled.paths_of(wanted, index)
    if lacking:
        raise PlanError([f"bundle: lacks {', '.join(lacking[:3])} of the lock. Make it anew."])
    for path in paths:
        try:
            with (root / path).open("rb") as stream:
                right = hashlib.file_digest(stream, "sha256").hexdigest() == index[path]
        except OSError as error:
            raise PlanError([f"bundle: {root / path}: {error.strerror}. Make it anew."]) from None
        if not right:
            raise PlanError([f"bundle: {root / path} is damaged: it has other bytes than its index says."])
    return paths


def _send_files(remote: Remote, directory: str, root: Path, paths: list[str]) -> None:
    remote.run(f"install -d {shlex.quote(directory)}")
    there = upload.already(remote, directory, {path: root / path for path in paths})
    meter = progress.Meter(sum((root / path).stat().st_size for path in paths))
    for path in paths:
        source, offset = root / path, there.get(path, 0)
        meter.skip(offset)
        for start, piece in upload.pieces(source, offset):
            upload.append(remote, f"{directory}/{path}", start, piece, owner="root")
            meter.add(len(piece))
            progress.tell(remote, LABEL, meter.text)
