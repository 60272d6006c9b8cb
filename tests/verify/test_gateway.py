"""The front: as planned, where planned, and closed to whom it should be."""

import httpx
import pytest
from pydantic import SecretStr

from ops.files import File
from plan import gateway as planning
from plan.gateway import GatewayPlan
from plan.host import ServicePlan
from plan.probe import Probe
from roles.gateway import deploy as role
from tests.verify.api import Api, monitored
from tests.verify.evidence import Evidence
from tests.verify.files import difference
from tests.verify.fleet import Planned

WRONG = SecretStr("x" * 32)


def _changed(gateway: GatewayPlan, planned: Planned, probe: Probe) -> str:
    """In which way its files are not as planned; empty when they are."""
    assert planned.key
    text = role.configuration_text(gateway, planned.key.get_secret_value())
    return difference(
        File(planning.UNIT_FILE, role.unit_text(gateway)), probe.paths.get(planning.UNIT_FILE)
    ) or difference(File(role.CONFIGURATION, text, **role.SECRET), probe.paths.get(role.CONFIGURATION))


def test_front_runs_as_planned(
    gateway: GatewayPlan, planned: Planned, probe: Probe, evidence: Evidence
) -> None:
    wrong = _changed(gateway, planned, probe)
    # what lets strangers in comes first, and is one matter with the change that does
    opened = [
        service.name for service in planned.plan.services if wrong and _lets_in(service, planned, evidence)
    ]
    assert not opened, f"{wrong}, and {', '.join(opened)} answers without a key. Deploy again at once."
    assert not wrong, wrong
    assert not probe.gateway.unloaded, (
        f"{planning.UNIT} goes by what was there before its files were written. Deploy again at once."
    )
    unit = evidence.unit(planning.UNIT)
    found = (unit.get("UnitFileState"), unit.get("ActiveState"), unit.get("SubState"))
    assert found == ("enabled", "active", "running"), f"{planning.UNIT} is {', '.join(map(str, found))}"


def test_front_listens_where_planned_and_nowhere_else(gateway: GatewayPlan, evidence: Evidence) -> None:
    state = evidence.unit(planning.UNIT).get("ActiveState") or "not there"
    if state != "active":
        pytest.skip(f"{planning.UNIT} is {state}")
    found = {
        f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}"
        for one in evidence.listening(planning.UNIT)
    }
    assert found == {front.listen for front in gateway.fronts}


def test_front_refuses_who_has_no_key(
    guarded_service: ServicePlan, serving: ServicePlan, planned: Planned, probe: Probe, api: Api
) -> None:
    if planned.plan.gateway and _changed(planned.plan.gateway, planned, probe):
        pytest.skip("the front is not configured as planned, which is another check's subject")
    assert _status(api, "/v1/models") == 401, f"{guarded_service.name} answers without a key"
    assert _status(api, "/v1/models", key=WRONG) == 401, f"{serving.name} answers to a wrong key"


def test_front_forwards_listed_routes_alone(
    guarded_service: ServicePlan, serving: ServicePlan, planned: Planned, api: Api
) -> None:
    assert guarded_service == serving
    listed = monitored(serving, planned)
    for path in {"/metrics", "/health", "/docs", "/v1/load_lora_adapter", "/api/pull"} - listed:
        assert _status(api, path, key=api.key) == 404, f"{path} of {serving.name} is open"


def _lets_in(service: ServicePlan, planned: Planned, evidence: Evidence) -> bool:
    """Whether a stranger gets an answer from the model behind the front."""
    running = evidence.unit(service.unit).get("ActiveState") == "active"
    if not (service.needs_key and running and evidence.listening(planning.UNIT)):
        return False
    with Api.of(service, planned, None) as api:
        try:
            return api.get("/v1/models").status_code == 200
        except httpx.HTTPError:
            return False


def _status(api: Api, path: str, key: SecretStr | None = None) -> int:
    try:
        return api.get(path, key).status_code
    except httpx.HTTPError as error:
        pytest.fail(f"{path}: {type(error).__name__}: {error}", pytrace=False)
