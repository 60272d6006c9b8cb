"""What an exchange needs of a host, at command level: packages, and a packet filter of either kind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ops import exchange

FIREWALL = Path(__file__).parents[2] / "templates/models/firewall.sh"
PEERS = ("10.1.0.7", "10.1.0.8")


def program(folder: Path, name: str, body: str) -> Path:
    """A program of that name that writes down what it was called with."""
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >>{folder.parent}/calls\n{body}\n')
    path.chmod(0o755)
    return path


def calls(folder: Path) -> list[str]:
    log = folder.parent / "calls"
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("body", ["", "exit 1"], ids=["EPEL-is-there", "nothing-is-there"])
def test_on_dnf_hosts_epel_comes_first_and_its_lack_fails_nobody(programs: Path, body: str) -> None:
    program(programs, "dnf", body)
    script = exchange.install_task("dnf").script
    run = subprocess.run(
        ["/bin/sh", "-euc", script],
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    asked = [call.split()[-2:] for call in calls(programs)]
    assert asked[0][-1] == "epel-release"
    assert asked[-1] == ["aria2", "nftables"]
    assert ("without aria2 this host pulls models for itself" in run.stdout) == bool(body)


@pytest.fixture
def without_nft(programs: Path) -> list[str]:
    """How to call something where there is no nft, and iptables is what the test says."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("needs root and a mount namespace")
    os.mknod(programs / "nft", 0o020000, os.makedev(0, 0))  # overlayfs: hides the real one
    mount = f"mount -t overlay -o lowerdir={programs}:/usr/sbin overlay /usr/sbin"
    return ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", "sh", str(FIREWALL)]


def test_where_nft_is_not_there_iptables_lets_in_the_peers_alone_and_is_cleared_again(
    programs: Path, without_nft: list[str], tmp_path: Path
) -> None:
    program(programs, "iptables", "")
    flag = tmp_path / "run" / "flag"
    assert subprocess.run([*without_nft, "up", "26000", flag, *PEERS], check=False).returncode == 0
    assert flag.exists()
    rules = [call.removeprefix("iptables -w ") for call in calls(programs)][-5:]
    assert rules == [
        "-N bringup_26000",
        "-A bringup_26000 -s 10.1.0.7 -j ACCEPT",
        "-A bringup_26000 -s 10.1.0.8 -j ACCEPT",
        "-A bringup_26000 -j DROP",
        "-I INPUT -p tcp -m multiport --dports 26000,26001 -j bringup_26000",
    ]
    assert subprocess.run([*without_nft, "down", "26000", flag], check=False).returncode == 0
    assert not flag.exists()
    assert [call.removeprefix("iptables -w ") for call in calls(programs)][-3:] == [
        "-D INPUT -p tcp -m multiport --dports 26000,26001 -j bringup_26000",
        "-F bringup_26000",
        "-X bringup_26000",
    ]


@pytest.mark.parametrize("iptables", [None, "case $* in *-N*) exit 3 ;; esac"], ids=["none", "broken"])
def test_where_no_filter_can_be_set_nothing_says_that_the_ports_are_guarded(
    programs: Path, without_nft: list[str], tmp_path: Path, iptables: str | None
) -> None:
    if iptables:
        program(programs, "iptables", iptables)
    flag = tmp_path / "flag"
    assert subprocess.run([*without_nft, "up", "26000", flag, *PEERS], check=False).returncode != 0
    assert not flag.exists()
