"""A batch on a host: killed in the middle, it goes on by itself, and every request has its answer once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.deploys import HOSTS, Run, deploy, on, until
from tests.lab.layout import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("fleet")]

HOST = HOSTS[1]
ANSWERS = "/var/lib/bringup/batch/bulk/answers.jsonl"
REQUESTS = 120
START_SECONDS = 600


def change(**bulk: object) -> Run:
    """A run for the one host: a batch beside what it serves."""
    model = json.loads((Lab.from_environment().hubs / "sources.json").read_text())["model"]
    cache = {"extra_args": ["--kv-cache-memory-bytes", str(64 * 1024**2)], "max_model_len": 1024}
    serve = {"bulk": {"model": model, **cache, **bulk}}
    run = deploy("--limit", HOST, "--data", f"serve={json.dumps(serve)}")
    assert run.code == 0, run.errors[-4000:]
    return run


def test_a_killed_batch_goes_on_and_every_request_has_its_answer_once(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    lines = [
        {"custom_id": f"q{n}", "url": "/v1/completions", "body": {"prompt": f"{n}", "max_tokens": 48}}
        for n in range(REQUESTS)
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    wish = {"input": f"operator:{file}", "concurrency": 4}
    change(mode="batch", batch=wish | {"wait": False})
    count = f"cat {ANSWERS} 2>/dev/null | wc -l"
    until("some answers", lambda: int(on(HOST, count) or 0) >= 10, START_SECONDS)
    on(HOST, f'systemctl kill --signal=KILL vllm-bulk; printf \'{{"id": "torn\' >>{ANSWERS}')
    until("the next try", lambda: on(HOST, "systemctl show -P ActiveState vllm-bulk") == "activating", 60)

    run = change(mode="batch", batch=wish)
    assert f"{REQUESTS} of {REQUESTS} requests answered, 0 with an error" in run.output + run.errors
    answers = [json.loads(line) for line in on(HOST, f"cat {ANSWERS}").splitlines()]
    assert sorted(line["custom_id"] for line in answers) == sorted(str(line["custom_id"]) for line in lines)
    assert all(line["response"]["body"]["choices"][0]["text"].strip() for line in answers)
    assert on(HOST, "systemctl is-active vllm-bulk") == "active"

    change(state="absent")
    assert on(HOST, f"ls -d /etc/systemd/system/vllm-bulk* {ANSWERS} 2>/dev/null") == ANSWERS
