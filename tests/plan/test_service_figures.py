"""What a service was planned with, beside what its server says that it took."""

import pytest

from plan import service_figures, settings
from plan.decide import plan_host
from plan.host import HostPlan
from plan.probe import parse
from tests import probes
from tests.probes import with_block

H100 = with_block(
    with_block(probes.answer(probes.BARE), "pci", "0000:18:00.0 0x10de 0x2330 0x030200"),
    "driver",
    "580.65.06",
)
# vLLM 0.11 on a GPU.
SAID = """INFO [gpu_model_runner.py:2653] Model loading took 14.2488 GiB and 2.901 seconds
INFO [kv_cache_utils.py:1091] GPU KV cache size: 965,824 tokens
INFO [kv_cache_utils.py:1095] Maximum concurrency for 32,768 tokens per request: 29.47x"""


@pytest.fixture(scope="module")
def plan() -> HostPlan:
    service = {"model": "Qwen/Qwen2.5-7B-Instruct"}
    return plan_host("gpu-1", settings.read([{"serve": {"chat": service}}]), parse(H100))


def test_the_memory_of_a_service_is_predicted(plan: HostPlan) -> None:
    (figure,) = service_figures.predicted(plan)
    assert figure.what == "memory of its GPUs" and figure.measured is None
    assert figure.predicted and 16 < figure.predicted < 80


def test_what_it_took_stands_beside_what_was_planned(plan: HostPlan) -> None:
    (service,) = plan.services
    weights = next(found for found in service_figures.told(service, SAID) if found.unit == "GiB")
    tokens = next(found for found in service_figures.told(service, SAID) if found.unit == "tokens")
    assert (weights.measured, tokens.measured) == (14.2488, 965824)
    assert weights.predicted == pytest.approx(14.2, abs=0.5)
    assert tokens.predicted and 500_000 < tokens.predicted < 1_500_000


def test_a_server_that_says_nothing_has_no_figures(plan: HostPlan) -> None:
    assert list(service_figures.told(plan.services[0], "INFO Started server process")) == []
