"""Hosts for the tests of Ollama: settings, what a probe finds of it, plans, and what a deploy sends."""

import json
import shlex
from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.errors import SettingsError
from plan.host import HostPlan
from plan.probe import parse
from roles.ollama import deploy as role
from tests import probes
from tests.roles.fleet import Exec, Run

BARE = probes.answer(probes.BARE)
TAG = "qwen2.5:0.5b"
QUANTIZED = "modelscope.cn/Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M"
SHA256 = "ab" * 32
STORE = "/srv/models/ollama"
PRUNE = {"ollama": {"prune": True}}


def small(**changed: Any) -> dict[str, Any]:
    return {"serve": {"small": {"engine": "ollama", "model": TAG} | changed}}


def planned(*layers: dict[str, Any], probe: str = BARE) -> HostPlan:
    return plan_host("host", settings.read(layers), parse(probe))


def refusals(*layers: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        settings.read(layers)
    return refused.value.sentences


def with_ollama(*lines: str) -> str:
    """The bare host, on which the probe found these lines of Ollama's."""
    return BARE.replace("@@end", "\n".join(["@@ollama", *lines, "@@end"]))


def manifest(path: str, *sizes: int) -> str:
    """A manifest of the store, with files of these sizes."""
    layers = [{"digest": f"sha256:{size:064x}", "size": size} for size in sizes]
    return f"manifest {path} {json.dumps({'config': layers[0], 'layers': layers[1:]})}"


def blobs(*sizes: int) -> list[str]:
    return [f"blob {size} sha256-{size:064x}" for size in sizes]


def removed(probe: str, *layers: dict[str, Any]) -> tuple[str, ...]:
    plan = planned(*(layers or [small()]), probe=probe).ollama
    assert plan
    return plan.removed_paths


def unit_of(plan: HostPlan) -> str:
    (service,) = plan.services
    return role.unit_text(plan, service)


def pull_command(run: Run) -> Exec:
    """The command that starts the task of the models."""
    (pull,) = [trip for trip in run.execs["small"] if "--unit=bringup-ollama-models" in trip.command]
    return pull


def pulled(run: Run) -> list[str]:
    """The words of the program that the task runs."""
    return shlex.split(pull_command(run).script().splitlines()[-1])
