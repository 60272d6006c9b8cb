"""Takes memory away from processes of a machine, so that the kernel's own OOM killer ends one of them.

A limit inside a machine is not enforced, since its memory is this computer's; one from outside is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab import cgroups
from tests.lab.layout import LabError, LabHost

LIMIT_BYTES = 1024 * 1024


@contextmanager
def starving(host: LabHost, processes: Iterable[int]) -> Iterator[Path]:
    """Gives processes, by their numbers inside the machine, next to no memory beyond what they have.

    Yields the file that counts the kills. What the processes start later is not bound by it.
    """
    wanted = set(processes)
    pids = [pid for pid in cgroups.processes(host.machine_cgroup) if _inner(pid) in wanted]
    limits = [path for path in cgroups.hierarchies() if (path / "memory.limit_in_bytes").exists()]
    if not pids or not limits:
        raise LabError(f"{host.name}: no such processes, or this computer cannot limit memory from outside.")
    directory = limits[0] / host.machine_cgroup / "starving"
    directory.mkdir()
    try:
        for pid in pids:
            (directory / "cgroup.procs").write_text(str(pid))
        (directory / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
        yield directory / "memory.oom_control"
    finally:
        for left in (directory / "cgroup.procs").read_text().split():
            with suppress(OSError):  # it has just ended
                (directory.parent / "cgroup.procs").write_text(left)
        cgroups.remove(f"{host.machine_cgroup}/starving")


def kills(counter: Path) -> int:
    """How many processes the kernel has killed there for want of memory."""
    found = re.search(r"^oom_kill (\d+)$", counter.read_text(), flags=re.MULTILINE)
    return int(found[1]) if found else 0


def _inner(pid: int) -> int | None:
    """The number that a process has inside its machine."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^NSpid:.*?(\d+)$", status, flags=re.MULTILINE)
    return int(found[1]) if found else None
