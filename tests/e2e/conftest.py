"""The lab's two hosts, for all end-to-end tests of one session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.deploys import heal
from tests.lab import machines


@pytest.fixture(scope="session")
def bare_hosts() -> Iterator[None]:
    """Two hosts that nothing was ever done to before the session; taken away after it."""
    machines.down()
    machines.up(2)
    yield
    machines.down()


@pytest.fixture
def fleet(bare_hosts: None) -> Iterator[None]:
    """The hosts as the test before left them, with the network and the stand-ins in order."""
    heal()
    yield
    heal()
