"""What the compiler made on a throw-away host, kept for the next one: ccache, beside the base images.

DKMS runs as it does everywhere. Only a compilation whose preprocessed input is known to the last byte takes
its object from the cache; a kernel, driver or compiler of another release compiles anew.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.lab import machines
from tests.lab.layout import Lab, LabError

CACHE = "/var/cache/ccache"
COMPILER = "/usr/bin/x86_64-linux-gnu-gcc-12"
# DKMS sets a PATH of its own, and the compiler comes later, with the kernel's headers.
TAKE_OVER = f"""set -e
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -y --no-install-recommends install ccache >/dev/null
    mkdir -p {CACHE}
    printf 'cache_dir = {CACHE}\\nmax_size = 1G\\n' >/etc/ccache.conf
    dpkg-divert --quiet --rename --divert {COMPILER}.own --add {COMPILER}
    printf '#!/bin/sh\nexec /usr/bin/ccache {COMPILER}.own "$@"\n' >{COMPILER}
    chmod 755 {COMPILER}"""


def _kept(lab: Lab) -> Path:
    return lab.images / "compiled.tar"


def _on(name: str, script: str, lab: Lab, *, read: int, write: int) -> None:
    command = [*machines.ssh_command(lab.host(name)), script]
    done = subprocess.run(command, stdin=read, stdout=write, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise LabError(f"The compiler's cache of {name}: {done.stderr.decode(errors='replace').strip()}")


def take_over(name: str, lab: Lab) -> None:
    """Compilations on a host are answered from what was kept, and are added to it.

    Raises:
        LabError: the host has no package ccache, or does not answer.
    """
    _on(name, TAKE_OVER, lab, read=subprocess.DEVNULL, write=subprocess.DEVNULL)
    kept = _kept(lab)
    if kept.exists():
        with kept.open("rb") as archive:
            _on(name, f"tar -x -C {CACHE}", lab, read=archive.fileno(), write=subprocess.DEVNULL)


def keep(name: str, lab: Lab) -> None:
    """Keeps what was compiled on the host, in place of what was kept before.

    Raises:
        LabError: the host does not answer.
    """
    kept = _kept(lab)
    part = kept.with_name(f"{kept.name}.{os.getpid()}")
    try:
        with part.open("wb") as archive:
            # what was not asked for in the last week belongs to releases that are gone
            script = f"ccache --evict-older-than 7d >&2 && tar -c -C {CACHE} ."
            _on(name, script, lab, read=subprocess.DEVNULL, write=archive.fileno())
        part.replace(kept)
    finally:
        part.unlink(missing_ok=True)
