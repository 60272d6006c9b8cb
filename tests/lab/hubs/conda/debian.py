"""Packages of the base image's distribution, fetched without installing or changing anything."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.lab.hubs.recipe import BuildError

# Every Debian and Ubuntu system has these, so nothing needs to be brought along from here on.
ALWAYS_THERE = {"libc6", "libgcc-s1", "libcrypt1", "libcrypt2"}


class Archive:
    """apt as the base image is configured, with its lists and caches in a scratch folder."""

    def __init__(self, base_image: Path, scratch: Path) -> None:
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (scratch / folder).mkdir(parents=True, exist_ok=True)
        self._configuration = scratch / "apt.conf"
        self._configuration.write_text(
            f'Dir::Etc "{base_image}/etc/apt";\n'
            f'Dir::State "{scratch}/state";\n'
            f'Dir::State::status "{base_image}/var/lib/dpkg/status";\n'
            f'Dir::Cache "{scratch}/cache";\n'
            'APT::Sandbox::User "root";\n'
        )

    def update(self) -> None:
        self._run("apt-get", "update", "--quiet")

    def field(self, package: str, name: str) -> str:
        """One field of the candidate's control data, "" when it has none."""
        control = self._run("apt-cache", "show", "--no-all-versions", package)
        found = re.search(rf"(?m)^{re.escape(name)}: (.*)$", control)
        return found[1] if found else ""

    def libraries_of(self, packages: Iterable[str]) -> set[str]:
        """The library packages that these packages need on a system that has nothing, directly or not."""
        nothing = ("-o", "Dir::State::status=/dev/null")
        plan = self._run("apt-get", "install", "--simulate", "--no-install-recommends", *nothing, *packages)
        names = set(re.findall(r"(?m)^Inst (\S+)", plan))
        return {name for name in names if name.startswith(("lib", "zlib"))} - ALWAYS_THERE

    def download(self, packages: Iterable[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._run("apt-get", "download", "--quiet", *sorted(packages), cwd=folder)

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        environment = os.environ | {"APT_CONFIG": str(self._configuration), "LC_ALL": "C"}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise BuildError(f"{' '.join(command[:2])} failed for the lab's base image: {reason}")
        return done.stdout


def unpack(folder: Path, target: Path) -> None:
    """Unpack every .deb of a folder into one tree."""
    target.mkdir(parents=True)
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", str(package), str(target)], check=True)
