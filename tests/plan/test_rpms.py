"""Packages of RHEL's family in a lock and in a bundle; what dnf itself said is in tests/roles/dnf."""

from __future__ import annotations

import hashlib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from plan import dnf_closure, nvidia_pins, rpm_index
from plan.errors import PlanError

DNF = Path(__file__).parents[1] / "roles" / "dnf"
RPMS = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (DNF / "rpms").iterdir()}
COMMON = "{http://linux.duke.edu/metadata/common}"
RPM = "{http://linux.duke.edu/metadata/rpm}"


def test_what_dnf_resolves_on_an_empty_system_is_in_the_lock_with_its_hash() -> None:
    found = dnf_closure.parse((DNF / "closure.txt").read_text())
    assert "aria2" not in found.made_by
    assert {"glibc-devel-2.34-1.el9.noarch.rpm", "cpp-11.5-1.el9.noarch.rpm"} < {*found.files}
    assert {name: found.files[name].sha256 for name in RPMS} == RPMS


def test_a_driver_is_locked_at_its_release_with_what_it_is_built_with() -> None:
    offers = (DNF / "driver-closure.txt").read_text()
    found = nvidia_pins.closure(offers)
    assert found
    names = {name.rsplit("-", 2)[0] for name in found.files}
    assert {"kmod-nvidia-open-dkms", "nvidia-kmod-common", "dkms", "kernel-devel"} < names
    assert "python3-dnf-plugin-versionlock" in names
    assert nvidia_pins.closure(offers.partition("\n")[2]) is None


@pytest.mark.parametrize(
    "answer", ["", "lacks nginx\n", f"package http://mirror.example/old-1-1.rpm 5 sha1:{'a' * 40}\n"]
)
def test_a_repository_without_packages_or_hashes_is_said_so(answer: str) -> None:
    with pytest.raises(PlanError, match=r"^packages: dnf "):
        dnf_closure.parse(answer)


def test_the_index_has_every_package_with_what_it_needs() -> None:
    written = rpm_index.texts(DNF / "rpms", RPMS)
    primary = ElementTree.fromstring(written["repodata/primary.xml"])
    found = {package.findtext(f"{COMMON}name"): package for package in primary.iter(f"{COMMON}package")}
    nginx = found["nginx"]
    assert nginx.findtext(f"{COMMON}checksum") == RPMS["nginx-1.20-1.el9.noarch.rpm"]
    assert [entry.get("name") for entry in nginx.iter(f"{RPM}entry")][:2] == ["nginx", "nginx-core"]
    index = written["repodata/repomd.xml"]
    for path in ("repodata/primary.xml", "repodata/filelists.xml"):
        assert f'href="{path}"' in index
        assert hashlib.sha256(written[path].encode()).hexdigest() in index


def test_the_index_is_the_same_wherever_and_whenever_it_is_made(tmp_path: Path) -> None:
    for name in RPMS:
        (tmp_path / name).write_bytes((DNF / "rpms" / name).read_bytes())
    assert rpm_index.texts(tmp_path, RPMS) == rpm_index.texts(DNF / "rpms", RPMS)


def test_what_is_no_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.rpm").write_bytes(b"no package")
    with pytest.raises(PlanError, match=r"broken\.rpm: is no RPM"):
        rpm_index.texts(tmp_path, {"broken.rpm": "a" * 64})
