"""What a computer must have to run the lab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.layout import LabError

PACKAGES = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
"""Each program the lab calls, and the Debian package that has it."""


def check() -> None:
    """Raise LabError, in one sentence, where the lab cannot run."""
    if sys.platform != "linux":
        raise LabError(f"The lab needs Linux, and this is {sys.platform}: use a Debian or Ubuntu machine.")
    if os.geteuid() != 0:
        raise LabError("The lab needs root, because it makes machines and a network: run it with sudo.")
    missing = sorted({package for program, package in PACKAGES.items() if not shutil.which(program)})
    if missing:
        raise LabError(
            f"Missing on this computer: {', '.join(missing)}; install with "
            f"`apt-get install --no-install-recommends {' '.join(missing)}`."
        )
    if not _has_overlayfs():
        raise LabError(
            "This computer's kernel has no overlayfs, which the hosts' disks are made of: try another kernel."
        )


def _has_overlayfs() -> bool:
    def known() -> bool:
        return "\toverlay\n" in Path("/proc/filesystems").read_text()

    if not known() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "overlay"], capture_output=True)
    return known()
