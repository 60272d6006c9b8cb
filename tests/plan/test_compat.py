"""The compatibility tables: what they cover, and that every row says where it is from."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from plan import compat
from plan.compat import version
from plan.gpus import Capability

TABLES = sorted(Path(compat.__file__).parent.glob("compat-*.toml"))


def rows(table: Path) -> list[dict[str, Any]]:
    return [row for entries in tomllib.loads(table.read_text()).values() for row in entries]


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_every_row_and_every_build_has_a_source(table: Path) -> None:
    for row in rows(table):
        assert row["source"].strip(), row
        assert all(build["source"].strip() for build in row.get("builds", [])), row


def test_the_tables_cover_what_is_in_use() -> None:
    branches = {row.branch for row in compat.branches()}
    assert {
        450,
        470,
        510,
        515,
        525,
        530,
        535,
        545,
        550,
        555,
        560,
        565,
        570,
        575,
        580,
        590,
        595,
        610,
    } <= branches
    torches = {tuple(map(int, release.split(".")[:2])) for release in compat.torches()}
    assert {(2, minor) for minor in range(1, 16)} <= torches
    vllms = {version(release).release[1] for release in compat.vllms()}
    assert set(range(6, 34)) <= vllms


@pytest.mark.parametrize(
    ("name", "glibc"),
    [
        ("ubuntu20.04", "2.31"),
        ("ubuntu22.04", "2.35"),
        ("ubuntu24.04", "2.39"),
        ("debian11", "2.31"),
        ("debian12", "2.36"),
        ("debian13", "2.41"),
        ("rhel8", "2.28"),
        ("rocky9.4", "2.34"),
        ("Rocky 10", "2.39"),
        ("almalinux8", "2.28"),
        ("openeuler24.03", "2.38"),
        ("kylin10", "2.28"),
        ("uos20", "2.28"),
        ("anolis8", "2.28"),
        ("opencloudos9", "2.38"),
    ],
)
def test_systems_have_their_c_library(name: str, glibc: str) -> None:
    system = compat.system(name)
    assert system is not None and system.glibc == glibc


@pytest.mark.parametrize("name", ["openeuler22.03", "kylin10", "uos20", "ubuntu26.04"])
def test_systems_whose_c_library_was_not_read_are_marked(name: str) -> None:
    system = compat.system(name)
    assert system is not None and not system.verified


def test_an_unknown_system_is_not_taken_for_another() -> None:
    assert compat.system("plan9") is None and compat.system("ubuntu16.04") is None


def test_every_torch_pin_of_vllm_is_in_the_torch_table() -> None:
    assert {row.torch for row in compat.vllms().values()} <= set(compat.torches())


def test_every_cuda_of_a_build_is_in_the_cuda_table() -> None:
    builds = [build for torch in compat.torches().values() for build in torch.builds]
    used = {build.cuda for build in builds} | {
        build.cuda for row in compat.vllms().values() for build in row.builds
    }
    assert used - {""} <= {row.version for row in compat.cudas()}


def test_a_release_that_cannot_be_installed_says_why() -> None:
    for row in compat.vllms().values():
        assert bool(row.blocked) != bool(row.resolved_before), row.version


def test_the_ordinary_index_is_named_nowhere() -> None:
    urls = {build.url for row in compat.vllms().values() for build in row.builds}
    urls |= {build.url for row in compat.torches().values() for build in row.builds}
    hosts = {re.sub(r"^https://([^/]+)/.*", r"\1", url) for url in urls if url}
    assert hosts == {"wheels.vllm.ai", "download.pytorch.org"}


def test_a_driver_of_no_branch_counts_as_the_branch_before_it() -> None:
    assert compat.branch_of("605.10").branch == 595
    with pytest.raises(ValueError, match="older than 450"):
        compat.branch_of("440.33.01")


def test_what_fp8_asks_of_a_gpu_changed_between_releases() -> None:
    old, new = compat.quantization("fp8", "0.8.5"), compat.quantization("fp8", "0.19.1")
    assert old and new
    assert (old.capability, new.capability) == (Capability(8, 0), Capability(7, 5))
