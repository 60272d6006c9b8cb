"""The lab's machines, as functions: what `python -m tests.lab` does, for tests that need hosts.

    machines.up(2)
    machines.run("lab-1", "uname -r").stdout
    machines.power_off("lab-1")     # SIGKILL to all of its processes: the plug is pulled, the disk stays
    machines.boot("lab-1")

Every function takes `lab`; without it, the lab that the environment names (`Lab.from_environment`).
Whatever stops one is a LabError, in one sentence.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cgroups, disks, image, keys, needs, network, services, supervisor
from tests.lab.layout import MOST_HOSTS, Lab, LabError, LabHost
from tests.lab.shell import locked

DEFAULT_COUNT = 2


@dataclass(frozen=True)
class HostStatus:
    """One host, as it is now."""

    name: str
    address: str
    state: str
    """running or stopped."""
    system: str
    """What `systemctl is-system-running` says inside; "-" when nothing answers."""


def up(count: int = DEFAULT_COUNT, *, hubs: bool = True, lab: Lab | None = None) -> list[LabHost]:
    """Bring up hosts lab-1 to lab-COUNT and, unless HUBS is false, the stand-in services.

    What runs is left alone, what is dead is booted, what is missing is made. Returns once ssh answers on all.
    """
    if not 1 <= count <= MOST_HOSTS:
        raise LabError(f"A lab of {count} hosts is not possible: ask for 1 to {MOST_HOSTS}.")
    lab = lab or Lab.from_environment()
    with _alone(lab):
        network.check(lab)
        keys.ensure(lab)
        base = image.ensure(lab)
        network.bring_up(lab)
        image.discard_unused(lab, keep=base)
        hosts = [host for host in lab.possible_hosts() if host.number <= count]
        with ThreadPoolExecutor(MOST_HOSTS) as pool:
            booting = [pool.submit(_bring_up, host, base) for host in hosts]
            if hubs:
                services.build(lab, base)
        for host in booting:
            host.result()
        if hubs:
            services.ensure_serving(lab)
    return hosts


def down(lab: Lab | None = None) -> None:
    """End every process of the lab, and remove its hosts' disks, its network and its cgroups."""
    lab = lab or Lab.from_environment()
    with _alone(lab):
        _take_down(lab)


def clean(lab: Lab | None = None) -> None:
    """`down`, and the state directory goes too: base image, keys, what the stand-ins have built."""
    lab = lab or Lab.from_environment()
    with _alone(lab):
        _take_down(lab)
        if lab.directory.exists():
            shutil.rmtree(lab.directory)


def status(lab: Lab | None = None) -> list[HostStatus]:
    """Every host that exists, with the state of its systemd."""
    lab = lab or Lab.from_environment()
    with ThreadPoolExecutor(MOST_HOSTS) as pool:
        return list(pool.map(_status, lab.hosts()))


def power_off(name: str, lab: Lab | None = None) -> None:
    """Pull the plug of a host: SIGKILL to all of its processes at once. Its disk stays."""
    lab = lab or Lab.from_environment()
    with _alone(lab):
        supervisor.stop(lab.host(name))


def boot(name: str, lab: Lab | None = None) -> None:
    """Start a stopped host on the disk it had, and return once ssh answers; a running one is left alone."""
    lab = lab or Lab.from_environment()
    with _alone(lab):
        host = lab.host(name)
        network.check(lab)
        network.bring_up(lab)
        _bring_up(host, host.directory / "base")


def run(
    name: str,
    command: str,
    *,
    user: str = "root",
    input: str | None = None,
    timeout_seconds: float | None = None,
    lab: Lab | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run COMMAND in a host's shell over SSH; its exit status and output are in the result (255: no SSH)."""
    lab = lab or Lab.from_environment()
    return subprocess.run(
        [*ssh_command(lab.host(name), user), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "--", command],
        capture_output=True,
        text=True,
        input=input or "",
        timeout=timeout_seconds,
    )


def disk(name: str, lab: Lab | None = None) -> Path:
    """The root of a running host's disk, as a path of this computer: what is written there, the host has."""
    lab = lab or Lab.from_environment()
    for process in cgroups.processes(lab.host(name).machine_cgroup):
        status = Path(f"/proc/{process}/status")
        # services have roots of their own, which are read-only; and processes end while one looks at them
        with suppress(OSError):
            if re.search(r"^NSpid:.*\s1$", status.read_text(), re.MULTILINE):
                return Path(f"/proc/{process}/root")
    raise LabError(f"{name} does not run: `python -m tests.lab boot {name}`.")


def ssh_command(host: LabHost, user: str = "root") -> list[str]:
    """The command line that logs in to a host; a remote command can follow."""
    return ["ssh", "-F", str(host.lab.ssh_config), "-l", user, host.name]


@contextmanager
def _alone(lab: Lab) -> Iterator[None]:
    """One command at a time may change a lab."""
    needs.check()
    lab.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(lab.directory / "lock", "another lab command"):
        yield


def _bring_up(host: LabHost, base: Path) -> None:
    began = time.monotonic()
    if was_running := supervisor.is_running(host):
        _wait_until_ready(host)
    else:
        supervisor.stop(host)
        if not host.directory.is_dir():
            disks.make(host, base)
        supervisor.start(host)
        _wait_until_ready(host)
    done = "is up" if was_running else f"ready in {time.monotonic() - began:.1f} s"
    print(f"{host.name} {host.address} {done}", flush=True)


def _wait_until_ready(host: LabHost, timeout_seconds: float = 90) -> None:
    """Until ssh answers and users may log in; services that take long to start are not waited for."""
    deadline = time.monotonic() + timeout_seconds
    ready = "systemctl is-active --quiet dbus.socket && systemctl is-active systemd-user-sessions.service"
    settled = "timeout 3 systemctl is-system-running --wait >/dev/null; true"
    while _answer(host, f"{ready} && {{ {settled}; }}", timeout_seconds) != "active":
        if not cgroups.processes(host.cgroup):
            raise LabError(f"{host.name} did not start: {_last_words(host)} (all of it in {host.console}).")
        if time.monotonic() > deadline:
            raise LabError(
                f"{host.name} does not answer ssh within {timeout_seconds:.0f} s: see {host.console}."
            )
        time.sleep(0.1)


def _status(host: LabHost) -> HostStatus:
    running = supervisor.is_running(host)
    system = _answer(host, "systemctl is-system-running", timeout_seconds=5) if running else ""
    return HostStatus(host.name, host.address, "running" if running else "stopped", system or "-")


def _answer(host: LabHost, command: str, timeout_seconds: float) -> str:
    """What COMMAND prints on the host; "" when the host does not answer."""
    try:
        return run(host.name, command, timeout_seconds=timeout_seconds, lab=host.lab).stdout.strip()
    except subprocess.TimeoutExpired:
        return ""


def _last_words(host: LabHost) -> str:
    lines = host.console.read_text(errors="replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else "it said nothing"


def _take_down(lab: Lab) -> None:
    cgroups.kill(lab.cgroup)
    services.stop(lab)
    for host in lab.possible_hosts():
        supervisor.stop(host)
    cgroups.remove(lab.cgroup)
    network.take_down(lab)
    disks.discard_all(lab)
