"""Services by Ollama: of the planned version, with their model, answering, on loopback alone."""

import ipaddress
import json
import time
from collections.abc import Callable

import openai
import pytest
import testinfra.host

from ops.files import File
from plan.archives import Archive
from plan.host import HostPlan, ServicePlan
from plan.probe import Probe
from plan.probe_ollama import whole_name
from roles.ollama import deploy as role
from tests.verify.api import Api
from tests.verify.evidence import Evidence
from tests.verify.files import difference

QUESTION = "服务正常吗？"


@pytest.fixture
def archive(ollama_service: ServicePlan, plan: HostPlan) -> Archive:
    """The planned version."""
    assert plan.ollama and plan.ollama.archive
    return plan.ollama.archive


def test_the_planned_version_is_installed_and_no_other(archive: Archive, probe: Probe) -> None:
    assert probe.ollama.versions == {archive.version}


def test_unit_file_is_as_planned(ollama_service: ServicePlan, plan: HostPlan, probe: Probe) -> None:
    path = f"/etc/systemd/system/{ollama_service.unit}"
    wrong = difference(File(path, role.unit_text(plan, ollama_service)), probe.paths.get(path))
    assert not wrong, wrong


def test_programs_are_ours(ollama_service: ServicePlan, probe: Probe) -> None:
    for program in role.programs():
        wrong = difference(program, probe.paths.get(program.path))
        assert not wrong, f"{ollama_service.unit}: {wrong}"


def test_service_is_enabled_and_active(
    ollama_service: ServicePlan, evidence: Evidence, tell: Callable[[str], None]
) -> None:
    unit = evidence.unit(ollama_service.unit)
    found = (unit.get("UnitFileState"), unit.get("ActiveState"), unit.get("SubState"))
    assert found == ("enabled", "active", "running"), f"{ollama_service.unit} is {', '.join(map(str, found))}"
    tell(f"{ollama_service.unit} active since {unit['ActiveEnterTimestamp']}")


def test_service_runs_as_its_user_and_cannot_write_to_the_store(
    ollama_service: ServicePlan, serving: ServicePlan, plan: HostPlan, evidence: Evidence
) -> None:
    others = {process.user_id for process in evidence.processes(serving.unit)} - {evidence.user_id}
    assert not others, f"processes of {serving.unit} run as user ids {sorted(others)}, not as {plan.user}"
    assert evidence.writable(serving.unit) == [], f"{serving.unit} may write to its store"


def test_service_listens_on_loopback_alone(
    ollama_service: ServicePlan, serving: ServicePlan, evidence: Evidence
) -> None:
    found = {(listener.address, listener.port) for listener in evidence.listening(serving.unit)}
    assert (serving.inner_address, serving.inner_port) in found, (
        f"{serving.unit} does not listen on {serving.url}"
    )
    reachable = [
        address for address, _ in found if not ipaddress.ip_address(address.strip("*") or "::").is_loopback
    ]
    assert not reachable, f"{serving.unit} has no authentication and listens on {', '.join(reachable)}"


def test_the_running_server_has_the_planned_version(archive: Archive, api: Api) -> None:
    version = api.get("/api/version", api.key).json()["version"]
    assert version == archive.version


def test_ollama_says_its_version_and_lists_the_model(
    ollama_service: ServicePlan, archive: Archive, serving: ServicePlan, host: testinfra.host.Host
) -> None:
    program = f"OLLAMA_HOST={serving.inner_url} HOME=/nonexistent {archive.directory}/bin/ollama"
    version, _, listed = host.run(f"{program} -v; echo; {program} list").stdout.partition("\n\n")
    assert archive.version in version, f"`ollama -v` says {version.strip()!r}, planned is {archive.version}"
    names = {whole_name(line.split()[0]) for line in listed.splitlines()[1:] if line.strip()}
    assert whole_name(serving.model.model) in names, f"`ollama list` of {serving.unit} shows {sorted(names)}"


def test_service_answers_a_chat(
    ollama_service: ServicePlan, serving: ServicePlan, api: Api, tell: Callable[[str], None]
) -> None:
    started = time.monotonic()
    try:
        answer = api.answer(QUESTION).strip()
    except openai.OpenAIError as error:
        pytest.fail(f"{type(error).__name__}: {error}", pytrace=False)
    assert answer, f"{serving.model.model} answered with nothing: its weights may be damaged"
    words = json.dumps(answer, ensure_ascii=False)
    tell(f"{serving.url}/v1 {QUESTION} {words} after {time.monotonic() - started:.1f} s")
