"""The distribution's nginx as a program of this computer, without installing or starting its service."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.lab.layout import LabError


def program(folder: Path) -> Path:
    """nginx of this computer, or of the distribution's package, unpacked below `folder`."""
    if there := shutil.which("nginx", path="/usr/sbin:/usr/bin"):
        return Path(there)
    _run(["apt-get", "download", "-q", "nginx"], folder)
    (package,) = folder.glob("nginx_*.deb")
    _run(["dpkg-deb", "-x", package.name, "unpacked"], folder)
    return folder / "unpacked" / "usr/sbin/nginx"


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"nginx cannot be had: `{' '.join(command)}` said {done.stderr.strip()[-300:]}.")
