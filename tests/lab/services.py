"""The stand-in services (tests/lab/hubs): built once, and served to the hosts from the gateway's address."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.lab import cgroups
from tests.lab.layout import REPOSITORY, Lab, LabError


def build(lab: Lab, base_image: Path) -> None:
    """Make what the stand-ins offer and LAB/hubs/sources.json; quick when it is there already."""
    from tests.lab import hubs  # only here: it brings numerical libraries, which no other command needs

    try:
        hubs.build(lab.hubs, base_image)
    except hubs.BuildError as error:
        raise LabError(str(error)) from error


def ensure_serving(lab: Lab, timeout_seconds: float = 30) -> None:
    """Leave the server alone if it answers, otherwise start it anew and wait until it does."""
    if is_serving(lab):
        return
    stop(lab)
    log = lab.directory / "hubs.log"
    command = [
        *cgroups.enter(lab.services_cgroup),
        *("setsid", "--fork", "sh", "-c", 'echo $$ > "$0" && exec "$@"', str(_process_file(lab))),
        *(sys.executable, "-m", "tests.lab.hubs", "serve", str(lab.hubs), lab.gateway),
    ]
    with log.open("a") as file:
        subprocess.run(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=True
        )
    deadline = time.monotonic() + timeout_seconds
    while not is_serving(lab):
        if time.monotonic() > deadline or not cgroups.processes(lab.services_cgroup):
            last = (log.read_text().strip().splitlines() or ["it said nothing"])[-1]
            raise LabError(
                f"The stand-in services do not answer on {lab.gateway}: {last} (all of it in {log})."
            )
        time.sleep(0.05)


def is_serving(lab: Lab) -> bool:
    """Whether this lab's own server answers on all of its ports."""
    from tests.lab.hubs.serve import FILES_PORT, MODELSCOPE_PORT

    return bool(cgroups.processes(lab.services_cgroup)) and all(
        _answers(lab.gateway, port) for port in (FILES_PORT, MODELSCOPE_PORT)
    )


def stop(lab: Lab) -> None:
    cgroups.kill(lab.services_cgroup)
    cgroups.remove(lab.services_cgroup)
    _process_file(lab).unlink(missing_ok=True)


def _process_file(lab: Lab) -> Path:
    return lab.directory / "hubs.pid"


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
