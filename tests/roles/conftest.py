"""The lab's stand-in servers, for the tests of the stand-ins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.lab.hubs import models, serve
from tests.lab.hubs.client import install_client
from tests.lab.hubs.wire import StandInServer
from tests.roles.download_host import Host


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hubs")
    models.build_models(root)
    return root


@pytest.fixture
def servers(published: Path) -> Iterator[list[StandInServer]]:
    started = serve.start(published, "127.0.0.1", 0, 0)
    yield started
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub(servers: list[StandInServer]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{servers[0].server_port}", trust_env=False) as client:
        yield client


@pytest.fixture
def files(servers: list[StandInServer]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{servers[1].server_port}", trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def modelscope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real client in an environment of its own."""
    return install_client(tmp_path_factory.mktemp("modelscope"))


@pytest.fixture
def host(tmp_path: Path, modelscope: Path, hub: httpx.Client, published: Path) -> Iterator[Host]:
    made = Host(tmp_path / "models", modelscope, hub, published)
    made.asked()
    yield made
    made.switch()
