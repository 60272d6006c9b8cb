"""Keeps one machine going: `python -m tests.lab.supervisor DIRECTORY PREFIX IMAGES NAME`.

It runs in a mount namespace of its own, so the host's disk is mounted nowhere else and unmounted by the
kernel when the machine is gone, however it ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from tests.lab import cgroups
from tests.lab.layout import REPOSITORY, Lab, LabError, LabHost
from tests.lab.network import remove_link
from tests.lab.shell import call, is_locked, locked, shared

_REBOOT = 133
"""systemd-nspawn's exit status when the system inside asks for a reboot: systemd-nspawn(1), Exit status."""


def start(host: LabHost) -> None:
    """Plug the machine in, in the background."""
    lab = host.lab
    command = [
        *cgroups.enter(host.supervisor_cgroup),
        *("setsid", "--fork", "unshare", "--mount", "--propagation=private"),
        *(sys.executable, "-m", "tests.lab.supervisor"),
        *(str(lab.directory), lab.prefix, str(lab.images), host.name),
    ]
    with host.console.open("a") as console:
        subprocess.run(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=console, stderr=console, check=True
        )


def is_running(host: LabHost) -> bool:
    """A supervisor holds its lock for as long as it lives, and its machine never outlives it."""
    return is_locked(host.directory / "supervisor.lock")


def stop(host: LabHost) -> None:
    """Pull the plug, and clear away what a machine leaves outside its disk."""
    cgroups.kill(host.cgroup)
    cgroups.remove(host.cgroup)
    remove_link(host.link)
    for leftover in ("propagate", "unix-export"):
        directory = Path("/run/systemd/nspawn", leftover, host.machine)
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def supervise(host: LabHost) -> int:
    """Run the machine until it is powered off; start it anew when it reboots."""
    with locked(host.directory / "supervisor.lock"), shared(host.directory / "base"):
        _mount(host)
        while True:
            status = _run_machine(host)
            print(f"{host.name}: systemd-nspawn ended with {status}", flush=True)
            if status != _REBOOT:
                return status
            remove_link(host.link)


def _mount(host: LabHost) -> None:
    """Relative paths, because a colon or a comma in an absolute one would divide overlayfs's options.

    The disk waits for no write: what a machine that lost its power wrote, this computer still has. That a
    disk was mounted so before is no reason to refuse it, unless this computer itself lost its power.
    """
    options = "lowerdir=base,upperdir=upper,workdir=work,volatile"
    shutil.rmtree(host.directory / "work" / "work" / "incompat", ignore_errors=True)
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, "root"]
    done = subprocess.run(mount, cwd=host.directory, capture_output=True, text=True)
    if done.returncode != 0:
        kind = call("stat", "--file-system", "--format=%T", host.directory).strip()
        raise LabError(
            f"The kernel refuses an overlay in {host.directory} (file system {kind}): "
            "set BRINGUP_LAB_DIR to a folder on ext4 or xfs."
        )


def _run_machine(host: LabHost) -> int:
    command = [
        *cgroups.enter(host.machine_cgroup),
        *("setpriv", "--pdeathsig=KILL"),
        *("systemd-nspawn", "--quiet", "--boot", "--directory=root", f"--machine={host.machine}"),
        *(f"--hostname={host.name}", f"--network-bridge={host.lab.bridge}", "--console=pipe"),
        *("--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off", "--link-journal=no"),
    ]
    own_lock_suffices = os.environ | {
        "SYSTEMD_NSPAWN_LOCK": "0"
    }  # systemd's outlives a machine that is killed
    with subprocess.Popen(
        command, cwd=host.directory, env=own_lock_suffices, stdin=subprocess.DEVNULL
    ) as machine:

        def shut_down(number: int, frame: FrameType | None) -> None:
            machine.terminate()

        signal.signal(signal.SIGTERM, shut_down)
        return machine.wait()


def main() -> int:
    directory, prefix, images, name = sys.argv[1:]
    lab = Lab(Path(directory), prefix, Path(images))
    try:
        return supervise(lab.host(name))
    except LabError as error:
        print(error, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
