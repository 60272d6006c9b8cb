"""apt at a mirror: our own list, read by the real apt, never the host's."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from plan import apt
from plan.errors import PlanError
from plan.probe import Probe, parse

CAPTURES = Path(__file__).parent.parent / "probes"


@pytest.fixture
def debian() -> Probe:
    return parse((CAPTURES / "debian12-bare.txt").read_text())


def test_debian_has_its_security_archive_beside_it(debian: Probe) -> None:
    text = apt.source_list("https://mirrors.example.org/", debian)
    assert "https://mirrors.example.org/debian bookworm main" in text
    assert "https://mirrors.example.org/debian-security bookworm-security main" in text


def test_ubuntu_on_arm_uses_the_ports_archive(debian: Probe) -> None:
    ubuntu = replace(debian, os_id="ubuntu", os_codename="noble", architecture="aarch64")
    assert "https://m.example/ubuntu-ports noble-security main universe" in apt.source_list(
        "https://m.example", ubuntu
    )


def test_another_distribution_is_refused_with_the_fix(debian: Probe) -> None:
    with pytest.raises(PlanError, match=r"sources\.apt: .* is no Debian or Ubuntu\. Leave it out"):
        apt.source_list("https://m.example", replace(debian, os_id="rocky"))


def test_the_real_apt_reads_our_list_and_no_other(debian: Probe, tmp_path: Path) -> None:
    source_list = tmp_path / "apt.list"
    source_list.write_text(apt.source_list("http://mirror.invalid", debian))
    options = [option.replace(apt.SOURCE_LIST, str(source_list)) for option in apt.options()]
    said = subprocess.run(
        ["apt-get", *options, "--print-uris", "update"], capture_output=True, text=True, check=True
    ).stdout
    assert said.count("InRelease' mirror.invalid") == 3
    assert all("mirror.invalid" in line for line in said.splitlines())


def test_the_distributions_own_driver_is_looked_for_at_the_mirror_too(debian: Probe) -> None:
    text = apt.source_list("https://mirrors.example.org", debian, with_driver=True)
    assert "debian bookworm main contrib non-free non-free-firmware\n" in text
