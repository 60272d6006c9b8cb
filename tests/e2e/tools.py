"""Programs that a few tests need of this computer."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def installed(program: str) -> str:
    """Where the program is, installed from Debian's package of that name where it is missing.

    One test at a time: apt does not wait for another one's.
    """
    with (Path(tempfile.gettempdir()) / "bringup-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shutil.which(program):
            install = f"apt-get update -qq && apt-get install -yqq --no-install-recommends {program}"
            quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["sh", "-c", f"{install} >/dev/null"], env=quiet, check=True)
    return str(shutil.which(program))
