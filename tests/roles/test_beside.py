"""A changed service beside the one that serves: what is sent, and what a failure costs."""

import re
from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.host import HostPlan
from plan.probe import parse
from plan.settings import merge
from tests import probes
from tests.probes import with_block
from tests.roles import commits
from tests.roles.fleet import Answer, FakeHost, Run, deploy
from tests.roles.served import served

MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
BARE = probes.answer(probes.BARE)
SECOND = "bringup-second-vllm-chat.service"
REPLACED = ["start replace-vllm-chat", "join replace-vllm-chat"]
STAMP = ["stamp", "write /etc/bringup/plan.json"]


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    key = tmp_path_factory.mktemp("operator") / "api-key"
    key.write_text("a-key-that-nobody-may-see-0123\n")
    return {
        "serve": {"chat": {"model": MODEL}},
        "access": {"listen": "10.44.0.0/24", "api_key_file": str(key)},
    }


def plan(text: str, data: dict[str, Any]) -> HostPlan:
    wanted = settings.read([data])
    return plan_host("host", wanted, parse(text), pins=commits.pins(wanted))


def block(text: str, name: str) -> list[str]:
    return text.split(f"@@{name}\n")[1].split("\n@@")[0].splitlines()


def with_second(text: str) -> str:
    """The same host, on which a run that was cut left its second server."""
    left = [f"Id={SECOND}", "ActiveState=active", "SubState=running", "UnitFileState=transient"]
    left += ["Result=success", "MainPID=10", "NRestarts=0", "NeedDaemonReload=no", ""]
    return with_block(text, "units", *block(text, "units"), "", *left)


@pytest.fixture(scope="module")
def runs(lan: dict[str, Any]) -> Run:
    """Hosts whose service and front are at work, each with one thing changed."""
    first = deploy(FakeHost("host", BARE, lan))
    there = served(BARE, first.execs["host"], plan(BARE, lan))
    there = with_block(there, "gateway", *block(there, "gateway"), "switch chat", "port 8000")
    flag = merge([lan, {"serve": {"chat": {"flags": {"max-num-seqs": 8}}}}])
    absent = merge([lan, {"serve": {"chat": {"state": "absent"}}}])
    broken = [
        Answer(r"SubState bringup-replace", "failed"),
        Answer(rf"^journalctl .*{SECOND}", "RuntimeError: out of memory"),
    ]
    small = re.sub(r"MemAvailable: *\d+", "MemAvailable: 900000", there)
    return deploy(
        FakeHost("same", there, lan),
        FakeHost("flag", there, flag),
        FakeHost("broken", there, flag, broken),
        FakeHost("no-room", small, flag),
        FakeHost("left", with_second(there), lan),
        FakeHost("joined", with_second(small), flag),
        FakeHost("stopped", with_second(there.replace("ActiveState=active", "ActiveState=failed", 1)), lan),
        FakeHost("absent", with_second(there), absent),
        FakeHost("damaged", re.sub(r"^file \d+", "file 17", there, count=1, flags=re.MULTILINE), lan),
        FakeHost("outdated", there.replace("dist vllm-", "dist vllm-0.", 1), lan),
    )


def script(run: Run, host: str) -> str:
    (trip,) = [trip for trip in run.execs[host] if "--unit=bringup-replace-vllm-chat.service" in trip.command]
    return trip.script()


def test_a_service_as_planned_is_left_alone(runs: Run) -> None:
    assert runs.kinds("same") == ["probe"]


def test_a_changed_one_answers_before_the_old_one_goes(runs: Run) -> None:
    assert [kind for kind in runs.kinds("flag") if "grep -qx" not in kind] == ["probe", *REPLACED, *STAMP]
    text = script(runs, "flag")
    assert text.index("systemctl start $second") < text.index(">$switch") < text.index("restart $unit")
    assert "127.0.0.1:19000" in text


def test_its_flags_are_checked_before_anything_starts(runs: Run) -> None:
    check, start, *_ = runs.execs["flag"][1:]
    assert "this vLLM takes no $flag" in check.command
    assert "systemd-run" in start.command


def test_what_it_would_replace_is_not_written_before(runs: Run) -> None:
    assert "/etc/systemd/system/vllm-chat.service" not in runs.files("flag")
    assert "/etc/systemd/system/vllm-chat.service" in runs.files("no-room")


def test_one_that_does_not_serve_fails_its_host_with_what_to_change(runs: Run) -> None:
    assert runs.kinds("broken")[-1] == f"journal {SECOND}"
    assert "The GPU ran out of memory: lower serve.chat.max_model_len" in runs.output


def test_without_room_for_two_the_old_one_is_stopped_first_and_the_plan_says_so(runs: Run) -> None:
    kinds = runs.kinds("no-room")
    assert kinds == [
        *("probe", "write /etc/systemd/system/vllm-chat.service", "service restart", "look", *STAMP)
    ]
    assert "stopped before a changed one" in runs.output


@pytest.mark.parametrize("host", ["left", "joined", "damaged", "outdated"])
def test_what_was_cut_or_mended_goes_the_same_way(runs: Run, host: str) -> None:
    assert [kind for kind in runs.kinds(host) if "replace" in kind] == REPLACED


def test_a_second_server_beside_one_that_has_failed_goes_when_that_serves(runs: Run) -> None:
    assert runs.kinds("stopped")[1:] == ["service restart", "look", f"disable {SECOND}"]


def test_a_second_server_goes_with_its_service(runs: Run) -> None:
    assert f"disable {SECOND}" in runs.kinds("absent")
