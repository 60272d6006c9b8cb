"""A private cgroup per machine, in every hierarchy that this computer has (version 1, hybrid and 2).

Without one, all machines share a cgroup, their systemds collide, and nothing says which process belongs
to which machine. So the cgroup is also the lab's only record of its processes: it cannot go stale.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from tests.lab.layout import LabError

_JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit; shift; done; shift; exec "$@"'


def hierarchies() -> list[Path]:
    """Where the cgroup hierarchies are mounted, the unified one first."""
    version_2, version_1 = [], []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount_point, kind = Path(before.split()[4]), after.split()[0]
        if kind == "cgroup2":
            version_2.append(mount_point)
        elif kind == "cgroup":
            version_1.append(mount_point)
    return version_2 + version_1


def create(name: str) -> list[Path]:
    """Make the cgroup NAME everywhere and return its directories."""
    made = []
    for hierarchy in hierarchies():
        directory = hierarchy
        for part in name.split("/"):
            if directory != hierarchy:
                _hand_controllers_down(directory)
            directory = directory / part
            _make(directory)
        made.append(directory)
    return made


def enter(name: str) -> list[str]:
    """The beginning of a command line: what follows it runs inside the cgroup NAME."""
    procs = [str(directory / "cgroup.procs") for directory in create(name)]
    return ["/bin/sh", "-c", _JOIN, "sh", *procs, "--"]


def processes(name: str) -> set[int]:
    """Every process in the cgroup NAME and below it."""
    return {
        int(line)
        for directory in _directories(name)
        for procs in directory.rglob("cgroup.procs")
        for line in _read(procs).split()
    }


def kill(name: str, timeout_seconds: float = 120) -> None:
    """Pull the plug: SIGKILL to every process in the cgroup NAME, and wait until they are gone."""
    deadline = time.monotonic() + timeout_seconds
    while left := processes(name):
        if time.monotonic() > deadline:
            raise LabError(
                f"Processes {sorted(left)} of {name} outlive SIGKILL: see `ps` for what they wait on."
            )
        for directory in _directories(name):
            with contextlib.suppress(OSError):  # before Linux 5.14 and in version 1 there is no such file
                (directory / "cgroup.kill").write_text("1")
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def remove(name: str) -> None:
    """Take the cgroup NAME away; it has no processes any more."""
    for directory in _directories(name):
        inner = sorted((path for path in directory.rglob("*") if path.is_dir()), reverse=True)
        for path in [*inner, directory]:
            _remove_directory(path)


def _directories(name: str) -> list[Path]:
    return [directory for hierarchy in hierarchies() if (directory := hierarchy / name).is_dir()]


def _make(directory: Path) -> None:
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise LabError(
            f"A cgroup cannot be made under {directory.parent} ({error.strerror}): the lab needs a computer, "
            "or a privileged container, whose cgroups are writable."
        ) from None
    _inherit_cpuset(directory)


def _hand_controllers_down(directory: Path) -> None:
    """Version 2: whatever the outer system gives the lab, the machines can use."""
    for controller in _read(directory / "cgroup.controllers").split():
        with contextlib.suppress(OSError):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(directory: Path) -> None:
    """Version 1 refuses processes in a cpuset that has not been given processors and memory."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (directory / file).is_file() and not _read(directory / file).strip():
            with contextlib.suppress(OSError):
                (directory / file).write_text(_read(directory.parent / file))


def _remove_directory(path: Path, timeout_seconds: float = 5) -> None:
    """The kernel calls a cgroup busy for a moment after its last process has gone."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise LabError(f"The cgroup {path} cannot be removed: {error.strerror}.") from None
            time.sleep(0.02)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
