"""The services: running as planned, listening where planned, answering."""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import httpx
import openai
import pytest
from packaging.version import Version

from ops.files import File
from ops.render import render
from plan.host import BatchPlan, HostPlan, ServicePlan
from plan.probe import Probe
from plan.report import Figure
from roles.vllm import batch as batches
from roles.vllm import deploy as role
from tests.verify import figures
from tests.verify.api import Api
from tests.verify.evidence import Evidence
from tests.verify.files import difference

QUESTION = "服务正常吗？"

T = TypeVar("T")


def test_unit_file_is_as_planned(
    service: ServicePlan, plan: HostPlan, probe: Probe, evidence: Evidence
) -> None:
    assert plan.environment
    path = f"/etc/systemd/system/{service.unit}"
    wrong = difference(File(path, role.unit_text(plan, plan.environment, service)), probe.paths.get(path))
    assert not wrong, wrong
    assert evidence.unit(service.unit).get("NeedDaemonReload") == "no", (
        "systemd has not read the unit's newest text"
    )


def test_batch_is_answered_or_under_way(
    batch: BatchPlan, plan: HostPlan, probe: Probe, tell: Callable[[str], None]
) -> None:
    assert plan.environment
    path = f"/etc/systemd/system/{batch.unit}"
    for file in (File(path, batches.unit_text(plan, plan.environment, batch)), *batches.programs()):
        wrong = difference(file, probe.paths.get(file.path))
        assert not wrong, wrong
    unit = probe.units.get(batch.unit)
    assert unit and unit.enabled == "enabled", f"{batch.unit} is not enabled: a reboot ends it"
    assert unit.active in ("active", "activating"), f"{batch.unit} is {unit.active}: {unit.result}"
    tell(f"{batch.unit} {'is answered' if unit.active == 'active' else 'is at work'}: {batch.output}")


def test_readiness_check_is_ours(service: ServicePlan, probe: Probe) -> None:
    wrong = difference(
        File(role.READY, render("vllm/wait_until_ready.py"), mode="755"), probe.paths.get(role.READY)
    )
    assert not wrong, wrong


def test_service_is_enabled_and_active(
    service: ServicePlan,
    evidence: Evidence,
    tell: Callable[[str], None],
) -> None:
    unit = evidence.unit(service.unit)
    found = (unit.get("UnitFileState"), unit.get("ActiveState"), unit.get("SubState"))
    assert found == ("enabled", "active", "running"), f"{service.unit} is {', '.join(map(str, found))}"
    drop_ins = f", with {unit['DropInPaths']}" if unit["DropInPaths"] else ""
    since = unit["ActiveEnterTimestamp"]
    tell(f"{service.unit} active since {since}, restarted {unit['NRestarts']} times{drop_ins}")


def test_service_runs_as_its_user(serving: ServicePlan, plan: HostPlan, evidence: Evidence) -> None:
    processes = evidence.processes(serving.unit)
    assert processes, f"{serving.unit} has no processes"
    others = {process.user_id for process in processes} - {evidence.user_id}
    assert not others, f"processes of {serving.unit} run as user ids {sorted(others)}, not as {plan.user}"


def test_service_cannot_write_to_its_model(serving: ServicePlan, evidence: Evidence) -> None:
    writable = evidence.writable(serving.unit)
    assert writable is not None, f"{serving.unit} has no process to look through"
    assert not writable, f"{serving.unit} may write to {', '.join(writable)}"


def test_service_listens_where_planned_and_nowhere_else(serving: ServicePlan, evidence: Evidence) -> None:
    found = {(listener.address, listener.port) for listener in evidence.listening(serving.unit)}
    planned = (serving.inner_address, serving.inner_port)
    assert planned in found, f"{serving.unit} does not listen on {serving.inner}"
    open_to_others = {
        listener for listener in found if not listener[0].startswith("127.") and listener[0] != "::1"
    }
    assert not open_to_others, f"open to others: {sorted(open_to_others)}"


def test_the_running_server_has_the_planned_version(serving: ServicePlan, plan: HostPlan, api: Api) -> None:
    assert plan.environment
    version = _answered(lambda: api.get("/version", api.key)).json()["version"]
    planned = plan.environment.pins["vllm"]["vllm"]
    # a build's tag (+cpu, +cu128) is in its record, which another check reads, and not always in its answer
    assert Version(version).public == Version(planned).public, f"{serving.unit} runs {version}, not {planned}"


def test_service_names_its_model(serving: ServicePlan, api: Api) -> None:
    with api.client() as client:
        served = [model.id for model in _answered(client.models.list)]
    assert served == list(serving.served_names)


def test_service_answers_a_chat(serving: ServicePlan, api: Api, tell: Callable[[str], None]) -> None:
    for name in serving.served_names:
        started = time.monotonic()
        asked = dataclasses.replace(api, model=name)
        answer = _answered(partial(asked.answer, QUESTION)).strip()
        seconds = time.monotonic() - started
        assert answer, f"{name} answered with nothing: its weights may be damaged"
        words = json.dumps(answer, ensure_ascii=False)
        adapter = "" if name == serving.served_name else f"{name} "
        tell(f"{serving.url}/v1 {adapter}{QUESTION} {words} after {seconds:.1f} s")


def test_service_streams_its_answer(
    serving: ServicePlan, api: Api, evidence: Evidence, measure: Callable[[Figure], None]
) -> None:
    answer = _answered(lambda: api.streamed(QUESTION))
    assert len(answer.times) > 1, f"{serving.served_name} streamed {len(answer.times)} pieces"
    first_ms = answer.times[0] * 1000
    measure(Figure(serving.name, "time to the first token", "ms", None, round(first_ms, 1)))
    measure(Figure(serving.name, "tokens per second", "tok/s", None, round(answer.tokens_per_second, 1)))
    for figure in figures.of(serving, evidence):
        measure(figure)


def _answered(ask: Callable[[], T]) -> T:
    """What it returns; a failing connection or an error status is one sentence."""
    try:
        return ask()
    except (openai.OpenAIError, httpx.HTTPError) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        pytest.fail(f"{type(error).__name__}: {error}{cause}", pytrace=False)
