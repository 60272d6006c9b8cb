"""What the planner decides by itself for the Qwen2.5 and Qwen3 families, on eight H100s of 80 GB."""

import dataclasses

import pytest

from plan import models, settings
from plan.decide import plan_host
from plan.host import ServicePlan
from plan.models import ModelFacts
from plan.probe import Disk
from tests.plan.test_seats import gpus, host

EIGHT = host(8)
ROOMY = dataclasses.replace(EIGHT, disks={path: Disk("disk", 4000.0) for path in EIGHT.disks})
FAMILY = [
    model for key, model in sorted(models.known().items()) if key.startswith(("qwen/qwen2.5", "qwen/qwen3"))
]
# GPUs that a model takes so that its whole context fits.
COUNTS = {
    "Qwen/Qwen2.5-7B-Instruct": 1,
    "Qwen/Qwen2.5-32B-Instruct": 1,
    "Qwen/Qwen2.5-72B-Instruct": 4,
    "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int8": 2,
    "Qwen/Qwen2.5-72B-Instruct-AWQ": 1,
    "Qwen/Qwen2.5-Coder-32B-Instruct": 1,
    "Qwen/Qwen2.5-Math-72B-Instruct": 4,
    "Qwen/Qwen3-8B": 1,
    "Qwen/Qwen3-32B": 2,
    "Qwen/Qwen3-32B-FP8": 1,
    "Qwen/Qwen3-30B-A3B": 1,
    "Qwen/Qwen3-235B-A22B-FP8": 4,
    "Qwen/Qwen3-235B-A22B": 8,
}


def service(model: str, **wish: object) -> ServicePlan:
    (found,) = plan_host(
        "gpu-1", settings.read([{"serve": {"chat": {"model": model} | wish}}]), ROOMY
    ).services
    return found


def test_the_families_are_there_in_all_sizes_and_builds() -> None:
    assert len(FAMILY) > 90


@pytest.mark.parametrize("model", FAMILY, ids=lambda model: model.id)
def test_a_model_is_served_with_its_whole_context_under_its_own_name(model: ModelFacts) -> None:
    found = service(model.id)
    assert found.flags["max-model-len"] == model.context
    assert found.served_name == model.id
    assert found.flags["tensor-parallel-size"] == len(gpus(found))
    assert "dtype" not in found.flags
    assert "quantization" not in found.flags


@pytest.mark.parametrize(("model", "count"), COUNTS.items())
def test_a_model_takes_no_more_gpus_than_its_context_needs(model: str, count: int) -> None:
    assert len(gpus(service(model))) == count


@pytest.mark.parametrize(
    ("model", "tools", "reasoning"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "hermes", None),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "hermes", None),
        ("Qwen/Qwen3-8B", "hermes", "qwen3"),
        ("Qwen/Qwen3-32B-FP8", "hermes", "qwen3"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", "hermes", "qwen3"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "hermes", None),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_coder", None),
    ],
)
def test_calls_and_thoughts_are_read_as_the_family_writes_them(
    model: str, tools: str, reasoning: str | None
) -> None:
    found = service(model, tools=True, reasoning=reasoning is not None).flags
    assert (found["tool-call-parser"], found.get("reasoning-parser")) == (tools, reasoning)
    assert found["enable-auto-tool-choice"] is True
    assert not {"tool-call-parser", "reasoning-parser"} & set(service(model).flags)
