"""A model's facts over HTTP, from the lab's ModelScope hub and from wires that answer as no hub should."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from plan import checkpoint, hub
from plan.errors import PlanError
from plan.hub import Hub
from tests.lab.hubs import chat_model, repository
from tests.lab.hubs.serve import start


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    chat_model.write_model(directory, "master")
    return directory


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Iterator[tuple[str, Path]]:
    """A running hub with the tiny chat model: its address, and its log of requests."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "models" / chat_model.NAME
    published = repository.Repository()
    published.commit(model_directory, folder / "objects", "Publish", 1_700_000_000)
    published.save(folder)
    servers = start(root, "127.0.0.1", 0, 0)
    yield f"http://127.0.0.1:{servers[0].server_address[1]}", root / "requests.jsonl"
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_hub_and_the_directory_say_the_same(served: tuple[str, Path], model_directory: Path) -> None:
    here = checkpoint.from_directory(model_directory)
    with Hub(served[0]) as client:
        there = client.facts(chat_model.NAME)
    assert there.weight_bytes == here.weight_bytes > 0
    assert (there.layers, there.kv_heads, there.context) == (here.layers, here.kv_heads, here.context)


def test_an_unknown_model_is_refused_with_hub_and_revision(served: tuple[str, Path]) -> None:
    with Hub(served[0]) as client, pytest.raises(PlanError, match="has no no/such at revision master"):
        client.facts("no/such")
    with Hub(served[0], "v9") as client, pytest.raises(PlanError, match="at revision v9"):
        client.facts(chat_model.NAME)


def test_a_hub_that_is_down_is_refused_with_a_way_out() -> None:
    with Hub("http://127.0.0.1:9") as client, pytest.raises(PlanError, match="Name a hub that answers"):
        client.facts("Qwen/Some-Model")


@pytest.mark.parametrize(
    "text", ["Qwen", "a/b/c", "Qwen/$(reboot)", "Qwen/..", "../etc", "Qwen/a b", "/a", ""]
)
def test_only_hub_ids_reach_a_url(text: str) -> None:
    assert not hub.is_model_id(text)
    with Hub() as client, pytest.raises(PlanError, match="is no hub id"):
        client.facts(text)


def answering(reply: Callable[[httpx.Request], httpx.Response]) -> Hub:
    """A hub whose every answer is made by a function."""
    client = Hub("http://hub.example")
    client._client = httpx.Client(transport=httpx.MockTransport(reply))
    return client


def test_a_server_that_ignores_ranges_is_not_read_to_its_end() -> None:
    header = json.dumps({"w": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    read: list[int] = []

    def body() -> Iterator[bytes]:
        yield len(header).to_bytes(8, "little") + header
        for count in range(1_000_000):
            read.append(count)
            yield bytes(65_536)

    def reply(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/files"):
            files = [{"Path": "config.json", "Type": "blob"}, {"Path": "model.safetensors", "Type": "blob"}]
            return httpx.Response(200, json={"Data": {"Files": files}})
        if "config.json" in str(request.url):
            config = {"num_attention_heads": 1, "num_hidden_layers": 1, "hidden_size": 8, "vocab_size": 8}
            return httpx.Response(200, json=config | {"max_position_embeddings": 8})
        return httpx.Response(200, content=body())

    with answering(reply) as client:
        assert client.facts("a/b").weight_bytes == 8
    assert len(read) < 20


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (httpx.Response(500), "answered 500"),
        (httpx.Response(200, text="<html>"), "is no such list"),
        (httpx.Response(200, json={"Data": None}), "is no such list"),
        (httpx.Response(200, json={"Data": {"Files": []}}), "has no *.safetensors"),
    ],
)
def test_what_is_no_hub_is_refused(reply: httpx.Response, says: str) -> None:
    with answering(lambda _: reply) as client, pytest.raises(PlanError) as refusal:
        client.facts("a/b")
    assert says in refusal.value.sentences[0]
