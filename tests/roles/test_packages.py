"""Packages are installed on a host that is at its own updates, once these are done."""

import os
import subprocess
from pathlib import Path

import pytest

from ops.packages import install_task

# As dpkg and apt say it, of Debian 10 to 13.
LOCKED = [
    "dpkg: error: dpkg frontend is locked by another process",
    "dpkg: error: dpkg frontend lock was locked by another process with pid 4711",
    "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 4711 (apt-get)",
]


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder of programs; what they were asked for is in `asked`."""
    for name in ("dpkg", "apt-get", "sleep", "mkdir"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/asked\n'
            f'file="{tmp_path}/{name}.fails"\n'
            '[ -s "$file" ] || exit 0\nhead -n 1 "$file" >&2; sed -i 1d "$file"; exit 100\n'
        )
        program.chmod(0o755)
    return tmp_path


def install(host: Path) -> tuple[int, str, list[str]]:
    script = install_task("packages", ["curl"], "apt").script
    variables = os.environ | {"PATH": f"{host}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-euc", script], env=variables, capture_output=True, text=True, check=False)
    asked = [line.split()[0] for line in (host / "asked").read_text().splitlines()]
    return done.returncode, done.stdout, asked


@pytest.mark.parametrize("words", LOCKED)
def test_a_lock_is_waited_for(host: Path, words: str) -> None:
    (host / "dpkg.fails").write_text(f"{words}\n" * 3)
    code, said, asked = install(host)
    assert code == 0
    assert asked == [*["dpkg", "sleep"] * 3, "dpkg", "mkdir", "apt-get"]
    assert said.count("waiting for another installation to end") == 3


def test_another_failure_is_not_waited_out(host: Path) -> None:
    (host / "dpkg.fails").write_text("dpkg: error: unable to write: No space left on device\n")
    code, said, asked = install(host)
    assert code != 0 and "No space left" in said
    assert asked == ["dpkg"]
