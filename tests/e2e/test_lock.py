"""Two hosts from one lock are the same, whatever was published between their installations."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deploys import HOSTS, deploy, on
from tests.lab.layout import REPOSITORY, Lab
from tests.plan import wheel_index

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200), pytest.mark.usefixtures("fleet")]

ENVIRONMENT = "held"
PREFIX = f"/opt/bringup/conda/envs/{ENVIRONMENT}"
# Five packages that are asked for without a version, by one that is pinned.
LOOSE = tuple(f"loose-{letter}" for letter in "abcde")
PINNED = "asks-for-five"
# What is not compared: modules compiled on the host carry the time of their source; conda writes down when it
# made the environment, and in each record whence and how a package was linked; uv, when a wheel came from a
# directory, the time of that file, which is a line of the package's own list of files too.
SET_ASIDE = r"\.pyc$|/conda-meta/history$|/conda-meta/[^/]*\.json$|\.dist-info/uv_cache\.json$"
HASHES = """
find {folder} -type f ! -name RECORD -print0 | xargs -0 sha256sum
find {folder} -type f -name RECORD | while read -r file; do
    echo "$(grep -v '/uv_cache.json,' "$file" | sha256sum | cut -c 1-64)  $file"
done
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """An index of ours beside the lab's, which the hosts reach."""
    root = tmp_path_factory.mktemp("index")
    with wheel_index.served(root, Lab.from_environment().gateway) as url:
        yield root, url


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory, index: tuple[Path, str]) -> Path:
    """The lab's inventory with an environment beside the one that serves, and a model without a service."""
    folder = tmp_path_factory.mktemp("fleet") / "inventories"
    shutil.copytree(REPOSITORY / "inventories", folder)
    with (folder / "group_data" / "lab.py").open("a") as data:
        data.write(
            f'\nserve, models = {{}}, {{_offer["model"]: {{}}}}\n'
            f'environment = {{**environment, "name": "{ENVIRONMENT}", "packages": ["{PINNED}==1.0"]}}\n'
            f'sources = {{**sources, "wheels_extra": ["{index[1]}"]}}\n'
        )
    return folder / "lab.py"


def plan(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "plan", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(host: str, folder: str) -> dict[str, str]:
    """Path -> sha256 of every file that is compared."""
    said = on(host, HASHES.format(folder=folder))
    pairs = (line.split(maxsplit=1) for line in said.splitlines())
    return {path: digest for digest, path in pairs if not re.search(SET_ASIDE, path)}


def test_a_host_installed_when_five_packages_have_newer_releases_is_the_same(
    inventory: Path, index: tuple[Path, str]
) -> None:
    folder, _ = index
    wheel_index.publish(folder, {f"{name}==1.0": [] for name in LOOSE} | {f"{PINNED}==1.0": LOOSE})
    assert "2 hosts, 1 stacks" in plan("lock", str(inventory))
    first = deploy("--limit", HOSTS[0], inventory=str(inventory))
    assert first.code == 0, first.errors[-4000:]

    wheel_index.publish(folder, {f"{name}==2.0": [] for name in LOOSE})
    held = inventory.with_suffix(".lock").read_bytes()
    assert "unchanged: 2 hosts" in plan("lock", str(inventory))
    assert inventory.with_suffix(".lock").read_bytes() == held
    second = deploy("--limit", HOSTS[1], inventory=str(inventory))
    assert second.code == 0, second.errors[-4000:]

    one, other = (files(host, PREFIX) for host in HOSTS)
    assert len(one) > 1000
    assert one == other
    assert any("loose_e-1.0.dist-info" in path for path in other)
    model = re.compile(r"/\.bringup\.json$")
    one, other = (files(host, "/srv/models/Qwen") for host in HOSTS)
    assert {p: d for p, d in one.items() if not model.search(p)} == {
        p: d for p, d in other.items() if not model.search(p)
    }
    again = deploy("--json", inventory=str(inventory))
    assert again.changed() == {}
