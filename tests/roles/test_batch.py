"""A batch's unit as systemd reads it, and what a deploy does about it: sent, started, joined, left alone."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.host import HostPlan
from plan.probe import parse
from roles.vllm import batch as role
from tests import probes
from tests.probes import with_block
from tests.roles import commits
from tests.roles.fleet import Answer, FakeHost, Run, deploy
from tests.roles.security import exposure
from tests.roles.served import served
from tests.roles.systemd_words import settings as unit_settings
from tests.roles.systemd_words import words

BARE = probes.answer(probes.BARE)
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
UNIT = "/etc/systemd/system/vllm-bulk.service"


def wish(path: Path, **changed: Any) -> dict[str, Any]:
    batch = {"input": f"operator:{path}"} | changed
    return {"serve": {"bulk": {"model": MODEL, "mode": "batch", "batch": batch}}}


def planned(data: dict[str, Any]) -> HostPlan:
    wanted = settings.read([data])
    return plan_host("host", wanted, parse(BARE), pins=commits.pins(wanted))


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("operator") / "questions.jsonl"
    line = {"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "x"}}
    file.write_text(json.dumps(line) + "\n")
    return file


@pytest.fixture(scope="module")
def unit(requests: Path) -> str:
    plan = planned(wish(requests))
    assert plan.environment
    return role.unit_text(plan, plan.environment, plan.batches[0])


def value(text: str, name: str) -> str:
    (found,) = [found for _, setting, found in unit_settings(text) if setting == name]
    return found


class TestTheUnit:
    def test_is_active_when_all_is_answered_and_goes_on_after_a_reboot(self, unit: str) -> None:
        assert (value(unit, "Type"), value(unit, "RemainAfterExit")) == ("oneshot", "yes")
        assert (value(unit, "TimeoutStartSec"), value(unit, "WantedBy")) == ("infinity", "multi-user.target")

    def test_goes_on_where_it_was_cut_but_not_where_another_try_changes_nothing(self, unit: str) -> None:
        assert (value(unit, "Restart"), value(unit, "RestartPreventExitStatus")) == ("on-failure", "2")

    def test_its_vllm_is_reached_by_nobody(self, unit: str) -> None:
        assert value(unit, "PrivateNetwork") == "yes"
        command = words(value(unit, "ExecStart"))
        server = command[command.index("--") + 1 :]
        assert server[0].endswith("/bin/vllm")
        assert server[server.index("--host") + 1] == "127.0.0.1"
        assert server[server.index("--port") + 1] == command[command.index("--port") + 1] == "8000"

    @pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine")
    def test_is_confined_and_systemd_has_nothing_against_it(self, tmp_path: Path, unit: str) -> None:
        path = tmp_path / "vllm-bulk.service"
        path.write_text(unit.replace("/opt/bringup/conda/envs/serve/bin/python", "/bin/true"))
        assert exposure(path) <= 3.0
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


SENT = [Answer("echo whole", "0"), Answer("StatusText", "active none\n1 of 1 requests answered")]


@pytest.fixture(scope="module")
def first(requests: Path) -> Run:
    return deploy(FakeHost("a", BARE, wish(requests), SENT))


@pytest.fixture(scope="module")
def done(first: Run, requests: Path) -> str:
    return served(BARE, first.execs["a"], planned(wish(requests)))


def test_the_requests_are_there_before_the_unit_and_the_deploy_says_how_it_ended(first: Run) -> None:
    commands = [trip.command for trip in first.execs["a"]]
    sent = next(n for n, command in enumerate(commands) if "sha256sum" in command and ".part" in command)
    written = next(n for n, trip in enumerate(first.execs["a"]) if UNIT in trip.files())
    assert sent < written
    assert "test -w /var/lib/bringup/batch/bulk" in commands[written]
    assert "batch bulk: 1 of 1 requests answered" in first.output
    assert first.code == 0


def test_what_is_answered_costs_one_round_trip(done: str, requests: Path) -> None:
    assert deploy(FakeHost("a", done, wish(requests))).kinds("a") == ["probe"]


def test_what_is_under_way_is_joined_and_what_shall_not_be_waited_for_is_left_alone(
    done: str, requests: Path
) -> None:
    at_work = with_block(done.replace("ActiveState=active", "ActiveState=activating"), "listening")
    run = deploy(FakeHost("joined", at_work, wish(requests), SENT))
    assert "systemctl --no-block start vllm-bulk" in run.execs["joined"][-2].command
    left = with_block(
        deploy_text(requests, wait=False).replace("ActiveState=active", "ActiveState=activating"), "listening"
    )
    again = deploy(FakeHost("left", left, wish(requests, wait=False), SENT))
    assert not [trip for trip in again.execs["left"] if "systemctl --no-block" in trip.command]


def deploy_text(requests: Path, **changed: Any) -> str:
    data = wish(requests, **changed)
    return served(BARE, deploy(FakeHost("a", BARE, data, SENT)).execs["a"], planned(data))


def test_a_batch_that_fails_fails_its_host_with_its_newest_words(requests: Path) -> None:
    failing = [
        Answer("echo whole", "whole"),
        Answer("StatusText", "failed none\n"),
        Answer("^journalctl", "batch: vLLM has ended; error"),
    ]
    run = deploy(FakeHost("a", BARE, wish(requests), failing))
    assert run.code == 1
    assert "batch bulk: does not serve" in run.output


def test_an_absent_batch_leaves_its_answers(done: str, requests: Path) -> None:
    gone = {"serve": {"bulk": {"model": MODEL, "state": "absent"}}}
    run = deploy(FakeHost("a", done, gone))
    (trip,) = [trip for trip in run.execs["a"] if "disable --now vllm-bulk" in trip.command]
    assert "/var/lib/bringup/batch/bulk/input" in trip.command
    assert "answers" not in trip.command
