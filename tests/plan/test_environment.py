"""The packages that an operator adds to the environment, beside those of the plan."""

from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.errors import PlanError
from plan.host import HostPlan
from plan.probe import parse
from tests import probes

BARE = parse(probes.answer(probes.BARE))
ONE: dict[str, Any] = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}


def planned(*packages: str) -> HostPlan:
    return plan_host("gpu-1", settings.read([ONE, {"environment": {"packages": list(packages)}}]), BARE)


def test_further_packages_are_pinned_beside_torch() -> None:
    plan = planned("langfuse==3.0.0")
    assert plan.environment
    assert plan.environment.pins["torch"]["langfuse"] == "3.0.0"


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        (
            "torch==2.4.0",
            "environment.packages: torch==2.4.0: torch 2.13.0+cpu is planned. Set environment.torch",
        ),
        (
            "vllm[audio]==0.9.0",
            "environment.packages: vllm[audio]==0.9.0: vllm 0.32.0+cpu is planned. Set serve.",
        ),
        (
            "ModelScope==1.20.0",
            "environment.packages: ModelScope==1.20.0: modelscope 1.40.2 is planned. Leave it",
        ),
    ],
)
def test_packages_that_stand_against_the_plan_are_refused(package: str, sentence: str) -> None:
    with pytest.raises(PlanError) as refused:
        planned(package)
    (said,) = refused.value.sentences
    assert said.startswith(sentence)


def test_a_package_of_another_spelling_takes_the_place_of_the_plans() -> None:
    plan = planned("Transformers==5.18.0", "vllm[audio]==0.32.0+cpu")
    assert plan.environment
    assert "transformers" not in plan.environment.pins["torch"]
