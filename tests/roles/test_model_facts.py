"""A deploy reads a model that is in no table from its hub, once, and later runs do not need the hub."""

import json
import re
from typing import Any

import pytest

from plan.model_facts import FILE
from tests import probes
from tests.lab.hubs.chat_model import NAME
from tests.lab.hubs.wire import StandInServer
from tests.probes import with_block
from tests.roles import commits
from tests.roles.fleet import Answer, FakeHost, Run, deploy

BARE = probes.answer(probes.BARE)
UNIT = "/etc/systemd/system/vllm-chat.service"
NOBODY = "http://127.0.0.1:9"


def data(endpoint: str, **service: Any) -> dict[str, Any]:
    return {"serve": {"chat": {"model": NAME} | service}, "sources": {"models": endpoint}}


@pytest.fixture
def endpoint(servers: list[StandInServer]) -> str:
    return f"http://127.0.0.1:{servers[0].server_port}"


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
    commit = Answer(r"apt-helper", f"{commits.answer(NAME)}\n200")
    second = deploy(FakeHost("a", kept, answers=[commit]), data=data(NOBODY))
    assert second.code == 0, second.output
    assert context(second, "a") == context(first, "a")


def test_a_host_whose_model_cannot_be_read_is_refused_unless_its_context_is_set() -> None:
    wanted = data(NOBODY)
    said = {"serve": {"chat": {"max_model_len": 512}}}
    commit = [Answer(r"apt-helper", f"{commits.answer(NAME)}\n200")]
    run = deploy(FakeHost("silent", BARE), FakeHost("said", BARE, said, commit), data=wanted)
    assert run.code == 1
    assert f"refused: @fake/silent: serve.chat.model: {NAME} is in no table" in run.output
    assert "set serve.chat.max_model_len to serve it unchecked" in run.output
    assert "memory was not checked" in run.output
    assert context(run, "said") == "512"
    assert json.loads(run.files("said")[FILE]) == {f"{NAME}@master": None}
