"""Two deployed hosts for all end-to-end tests of a worker, and the order of the modules.

Workers of pytest-xdist run whole modules side by side, each in a lab of its own: what waits in one leaves
the processor to the other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.hubs.recipe import locked as building
from tests.lab.layout import Lab

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST = Lab.from_environment()
# What stand-ins offer and no address is in, dearest to make.
COPIED = ("python", "wheels")
# The longest first, so that no worker is left with one of them at the end; the README wants bare hosts.
ORDER = (
    "test_readme",
    "test_nvidia",
    "test_services",
    "test_chain",
    "test_proof",
    "test_ollama",
    "test_lock",
    "test_models",
)


def _lab_of_this_worker() -> None:
    """The first worker has the lab that the environment names; the others each one beside it."""
    if WORKER:
        *network, third = FIRST.prefix.split(".")
        os.environ["BRINGUP_LAB_NET"] = f"{'.'.join(network)}.{(int(third) + 100 + WORKER) % 256}"
        os.environ["BRINGUP_LAB_DIR"] = f"{FIRST.directory}-{WORKER + 1}"
        os.environ["BRINGUP_LAB_IMAGES"] = str(FIRST.images)


_lab_of_this_worker()

# these read the environment when they are imported
from tests.e2e.deploys import heal  # noqa: E402
from tests.lab import machines  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts whole modules into ORDER, then the others as they were."""

    def rank(item: pytest.Item) -> int:
        return ORDER.index(item.path.stem) if item.path.stem in ORDER else len(ORDER)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def bare_hosts() -> Iterator[None]:
    """Two hosts that nothing was ever done to before the session; taken away after it."""
    machines.down()
    if WORKER:
        _take_over(FIRST.hubs, Lab.from_environment().hubs)
    machines.up(2)
    yield
    if WORKER:
        machines.clean()
    else:
        machines.down()


def _take_over(source: Path, target: Path) -> None:
    """Hard links to what the first lab has made already; what it has not is made anew."""
    if not source.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True)
    with building(source):
        for name in COPIED:
            if (source / name).is_dir():
                shutil.rmtree(target / name, ignore_errors=True)
                subprocess.run(["cp", "-al", source / name, target / name], check=True)


@pytest.fixture
def fleet(bare_hosts: None) -> Iterator[None]:
    """The hosts as the test before left them, with the network and the stand-ins in order."""
    heal()
    yield
    heal()
