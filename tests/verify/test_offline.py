"""With --deep: the model generates without a server, as the tutorial does it, in the deployed environment.

Beside the services, on what they leave free, without a network and with a /tmp of its own.
"""

import json
from collections.abc import Callable

import pytest

from plan.host import ServicePlan
from plan.report import Figure
from tests.verify.evidence import Evidence

Measure = Callable[[Figure], None]
Tell = Callable[[str], None]


def test_model_generates_with_vllm_offline(
    offline: ServicePlan, evidence: Evidence, measure: Measure, tell: Tell
) -> None:
    _generated("vllm", offline, evidence, measure, tell)


def test_model_generates_with_transformers(
    offline: ServicePlan, evidence: Evidence, measure: Measure, tell: Tell
) -> None:
    _generated("transformers", offline, evidence, measure, tell)


def _generated(engine: str, service: ServicePlan, evidence: Evidence, measure: Measure, tell: Tell) -> None:
    told = evidence.generated(engine, service.model.directory)
    if told["outcome"] == "skipped":
        pytest.skip(told["cause"])
    assert told["outcome"] == "answered", f"{service.model.model} with {engine}: {told['cause']}"
    by = f"{service.name}, {engine} offline"
    measure(Figure(by, "memory", "GiB", told["needed_gib"], told["memory_gib"]))
    measure(Figure(by, "tokens per second", "tok/s", None, round(told["tokens"] / told["seconds"], 1)))
    words = json.dumps(told["words"].strip(), ensure_ascii=False)
    tell(f"{service.model.model} with {engine} on {told['device']}: {words}")
