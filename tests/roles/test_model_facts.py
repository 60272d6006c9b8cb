"""A deploy reads a model that is in no table from its hub, once, and later runs do not need the hub."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.model_facts import HEADERS
from plan.model_facts import FILE
from tests import probes
from tests.lab.hubs import chat_model
from tests.lab.hubs.chat_model import NAME
from tests.lab.hubs.faults import Faults
from tests.lab.hubs.huggingface import HuggingFaceHandler
from tests.lab.hubs.wire import RequestLog, StandInServer
from tests.probes import with_block
from tests.roles import commits
from tests.roles.fleet import Answer, FakeHost, Run, deploy

BARE = probes.answer(probes.BARE)
UNIT = "/etc/systemd/system/vllm-chat.service"
NOBODY = "http://127.0.0.1:9"


def data(endpoint: str | list[str], **service: Any) -> dict[str, Any]:
    return {"serve": {"chat": {"model": NAME} | service}, "sources": {"models": endpoint}}


@pytest.fixture
def endpoint(servers: list[StandInServer]) -> str:
    return f"http://127.0.0.1:{servers[0].server_port}"


@pytest.fixture
def huggingface(published: Path) -> Iterator[str]:
    log = RequestLog(published / "requests.jsonl")
    server = StandInServer(("127.0.0.1", 0), HuggingFaceHandler, published, log)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def context(run: Run, host: str) -> str:
    """The context length in the unit that was written to a host."""
    found = re.search(r"--max-model-len[\s\\]+(\d+)", run.files(host)[UNIT])
    assert found
    return found[1]


def test_read_once_kept_on_the_host_and_used_when_the_hub_is_gone(endpoint: str) -> None:
    first = deploy(FakeHost("a", BARE), FakeHost("b", BARE), data=data(endpoint))
    assert first.code == 0, first.output
    facts = json.loads(first.files("a")[FILE])[f"{NAME}@master"]
    assert str(facts["context"]) == context(first, "a")

    kept = with_block(BARE, "model_facts", *first.files("a")[FILE].splitlines())
    # the hub is out of the operator's reach, and in the host's
    read_of = commits.naming(facts["commit"])
    second = deploy(
        FakeHost("a", kept, answers=[Answer(r"apt-helper", f"{read_of}\n200")]), data=data(NOBODY)
    )
    assert second.code == 0, second.output
    assert context(second, "a") == context(first, "a")
    # the branch has moved: what was read of another commit says nothing
    moved = Answer(r"apt-helper", f"{commits.answer(NAME)}\n200")
    third = deploy(FakeHost("a", kept, answers=[moved]), data=data(NOBODY))
    assert third.code == 1
    assert f"refused: @fake/a: serve.chat.model: {NAME} is in no table" in third.output


def test_are_read_wherever_the_model_is_pinned_and_a_private_hub_gets_its_token(
    servers: list[StandInServer], huggingface: str, endpoint: str, tmp_path: Path
) -> None:
    wanted = data(endpoint)
    told = [deploy(FakeHost("a", BARE), data=wanted)]
    servers[0].faults.replace(Faults(token="ms-right-token"))
    assert "lets nobody in without the right token" in deploy(FakeHost("a", BARE), data=wanted).output
    told.append(deploy(FakeHost("a", BARE), data=wanted | {"models": {"token_env": "T"}}, T="ms-right-token"))
    servers[0].faults.replace(Faults())
    chat_model.write_model(tmp_path / NAME, "master")
    for place in (f"huggingface+{huggingface}", f"operator:{tmp_path}"):
        told.append(deploy(FakeHost("a", BARE), data=data([place])))
    headers = subprocess.run(
        ["sh", "-c", HEADERS.format(folder=tmp_path / NAME, commit="x", first=8, after=9, most=10**8)],
        capture_output=True,
        text=True,
        check=True,
    )
    on_nfs = [Answer("base64 -w 0 config.json", headers.stdout), Answer("current", "config.json 1 2")]
    told.append(deploy(FakeHost("a", BARE, answers=on_nfs), data=data(["host:/mnt/models"])))
    for run in told:
        assert run.code == 0, run.output
        assert "ms-right-token" not in run.output
    read = [json.loads(run.files("a")[FILE])[f"{NAME}@master"] for run in told]
    for name in ("source", "commit"):
        assert all(facts.pop(name) for facts in read)
    assert all(facts == read[0] for facts in read)


def test_a_host_whose_model_cannot_be_read_is_refused_unless_its_context_is_set() -> None:
    wanted = data(NOBODY)
    said = {"serve": {"chat": {"max_model_len": 512}}}
    commit = [Answer(r"apt-helper", f"{commits.answer(NAME)}\n200")]
    hosts = (FakeHost("silent", BARE, answers=commit), FakeHost("said", BARE, said, commit))
    run = deploy(*hosts, data=wanted)
    assert run.code == 1
    assert f"refused: @fake/silent: serve.chat.model: {NAME} is in no table" in run.output
    assert "set serve.chat.max_model_len to serve it unchecked" in run.output
    assert "memory was not checked" in run.output
    assert context(run, "said") == "512"
    assert json.loads(run.files("said")[FILE]) == {f"{NAME}@master": None}
