"""What goes with the last service: its unit whatever served it, and the user that nothing needs."""

import dataclasses
from typing import Any

from plan import settings
from plan.decide import plan_host
from plan.host import HostPlan
from plan.leavings import user_unused, user_wanted
from plan.probe import Probe, Unit, parse
from plan.probe_models import InstalledModel
from plan.probe_ollama import InstalledOllama
from tests import probes

BARE = dataclasses.replace(parse(probes.answer(probes.BARE)), user_exists=True)
UNIT = Unit("active", "running", "enabled", "success", 9, 0, False)
GONE = {"serve": {"chat": {"state": "absent"}}}
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
SEEN = InstalledModel({"model": MODEL, "revision": "master", "files": {}}, {})


def host(*units: str, **seen: Any) -> Probe:
    return dataclasses.replace(BARE, units=dict.fromkeys(units, UNIT), **seen)


def planned(probe: Probe, *layers: dict[str, Any]) -> HostPlan:
    return plan_host("gpu-1", settings.read(layers), probe)


def test_a_service_that_shall_be_absent_needs_no_model_and_no_engine() -> None:
    assert planned(host("vllm-chat.service"), GONE).removed_services == ("vllm-chat.service",)
    assert planned(host("ollama-chat.service"), GONE).removed_services == ("ollama-chat.service",)


def test_the_last_service_of_ollama_takes_its_program_along_though_nobody_says_that_it_was_one() -> None:
    paths = {"/opt/bringup/ollama": BARE.paths.get("/opt/bringup/ollama")}
    plan = planned(host("ollama-chat.service", paths=paths), GONE)
    assert plan.ollama
    assert plan.ollama.removed_paths == ("/opt/bringup/ollama",)


def test_a_service_of_another_engine_now_loses_the_unit_of_the_old_one() -> None:
    now = {"serve": {"chat": {"engine": "ollama", "model": "qwen2.5:0.5b"}}}
    there = host("vllm-chat.service", "ollama-chat.service")
    assert planned(there, now).removed_services == ("vllm-chat.service",)


def test_the_user_goes_when_nothing_is_served_installed_or_kept() -> None:
    assert user_unused(planned(host(), GONE), host())
    assert not user_unused(planned(BARE, GONE), dataclasses.replace(BARE, user_exists=False))


def test_the_user_stays_with_another_service_and_with_models() -> None:
    other = {"serve": {"other": {"model": MODEL}}}
    assert user_wanted(planned(host(), GONE, other))
    kept = host(models={f"/srv/models/{MODEL}/{'0' * 40}": SEEN})
    assert not user_unused(planned(kept, GONE), kept)


def test_the_user_goes_with_the_models_that_shall_go_and_stays_with_ollamas() -> None:
    kept = host(models={f"/srv/models/{MODEL}/{'0' * 40}": SEEN})
    removed = {"models": {MODEL: {"state": "absent"}}}
    assert user_unused(planned(kept, GONE, removed), kept)
    stored = host(ollama=InstalledOllama(stored_bytes=17))
    assert not user_unused(planned(stored, GONE), stored)
    assert user_unused(planned(stored, GONE, {"ollama": {"prune": True}}), stored)
