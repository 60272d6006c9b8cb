"""Batches are planned beside the services, and what cannot be answered is refused before anything happens."""

import json
from pathlib import Path
from typing import Any

import pytest

from plan import settings, show
from plan.decide import plan_host
from plan.errors import SettingsError
from plan.host import HostPlan
from tests.plan.test_seats import gpus, host

SMALL = "Qwen/Qwen2.5-0.5B-Instruct"
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}}


def batch(**wish: Any) -> dict[str, Any]:
    return {"model": SMALL, "mode": "batch", "batch": {"input": "host:/data/requests.jsonl"} | wish}


def planned(**services: Any) -> HostPlan:
    return plan_host("gpu-1", settings.read([{"serve": services}]), host(2))


def refusal(**services: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        planned(**services)
    (sentence,) = refused.value.sentences
    return sentence


def test_a_batch_takes_its_own_gpus_and_no_port_of_the_host() -> None:
    plan = planned(chat={"model": SMALL}, bulk=batch())
    (chat,), (bulk,) = plan.services, plan.batches
    assert not set(gpus(chat)) & set(gpus(bulk.service))
    assert (chat.port, bulk.service.address, bulk.unit) == (8000, "127.0.0.1", "vllm-bulk.service")
    assert [model.model for model in plan.models] == [SMALL]
    assert (bulk.input, bulk.output) == ("/data/requests.jsonl", "/var/lib/bringup/batch/bulk/answers.jsonl")


def test_a_batch_needs_no_key_and_no_front_beyond_loopback() -> None:
    beyond = {"serve": {"bulk": batch()}, "access": {"listen": "10.44.0.0/24"}}
    assert plan_host("gpu-1", settings.read([beyond]), host(1)).gateway is None


def test_a_file_of_the_operators_is_read_and_named_by_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(LINE))
    first = planned(bulk=batch(input=f"operator:{file}")).batches[0]
    assert first.source == str(file)
    assert first.input.startswith("/var/lib/bringup/batch/bulk/input/")
    file.write_text(json.dumps(LINE | {"custom_id": "other"}))
    assert planned(bulk=batch(input=f"operator:{file}")).batches[0].input != first.input


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "holds no requests. Write one object a line."),
        ("not json\n", "line 1: is no JSON. Write one object a line."),
        (json.dumps(LINE) + "\n" + json.dumps(LINE), "line 2: custom_id 'a' is there twice."),
    ],
)
def test_a_file_that_holds_no_requests_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(text)
    assert refusal(bulk=batch(input=f"operator:{file}")).startswith(f"serve.bulk.batch.input: {file}: {fact}")


def test_what_cannot_hold_together_is_refused() -> None:
    assert refusal(bulk={"model": SMALL, "mode": "batch"}) == (
        "serve.bulk.batch.input: is missing. Set it, for example 'operator:~/questions.jsonl'."
    )
    assert refusal(bulk={"model": SMALL, "batch": {"concurrency": 2}}) == (
        "serve.bulk.batch: is for batches. Set `mode: batch`, or leave it out."
    )
    assert refusal(bulk=batch() | {"port": 8000}) == (
        "serve.bulk.port: a batch answers no clients. Leave it out."
    )
    assert refusal(bulk=batch(input="host:/data/x.jsonl", output="/data/x.jsonl")) == (
        "serve.bulk.batch.output: /data/x.jsonl is its input. Choose another."
    )
    assert refusal(a=batch(output="/data/x.jsonl"), b=batch(output="/data/x.jsonl")) == (
        "serve.b.batch.output: /data/x.jsonl is serve.a's too. Choose another."
    )
    assert refusal(bulk=batch(input="host:/home/me/x.jsonl")) == (
        "serve.bulk.batch.input: services do not see /home/me/x.jsonl. "
        "Use a data disk's directory, as in '/data/batch.jsonl'."
    )


@pytest.mark.parametrize(
    "path", ["host:relative", "host:/a/$(id)", "host:/a/../b", "/data/x.jsonl", "host:/a b/c"]
)
def test_a_path_that_a_unit_could_read_otherwise_is_refused(path: str) -> None:
    assert refusal(bulk=batch(input=path)).startswith(f"serve.bulk.batch.input: '{path}' has signs or a form")


def test_the_plan_shows_what_is_answered_and_where_to() -> None:
    (row,) = [row for row in show.rows(planned(bulk=batch())) if row[0] == "serve.bulk"]
    assert "batch /data/requests.jsonl to /var/lib/bringup/batch/bulk/answers.jsonl" in row[1]
