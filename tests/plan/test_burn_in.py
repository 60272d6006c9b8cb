"""When GPUs are tested, with what, and what a diagnostic's words mean."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plan import burn_in, gpus, probe
from plan.probe import Probe
from plan.sections import BurnIn
from tests import probes
from tests.probes import with_block

SAMPLES = Path(__file__).with_name("dcgm")
H100, RTX, V100 = (gpus.lookup(name) for name in ("H100", "RTX 4090", "V100 SXM2 16GB"))
HOST = probe.parse(
    with_block(
        with_block(probes.answer(probes.BARE), "pci", "0000:18:00.0 0x10de 0x2330 0x030200"),
        "driver",
        "580.95.05",
    )
)


def sample(name: str) -> dict[str, Any]:
    return dict(json.loads((SAMPLES / f"{name}.json").read_text()))


def record(result: Any, **changed: Any) -> str:
    """What the host keeps of a diagnostic."""
    said = {"level": 1, "driver": "580.95.05", "exit": 0, "gpus": ["0000:18:00.0 0x2330"], "result": result}
    return json.dumps(said | changed)


def with_record(text: str) -> Probe:
    return replace(HOST, burn_in=text)


def planned(level: int | None, seen: Probe = HOST, *cards: gpus.Gpu) -> burn_in.BurnInPlan | None:
    return burn_in.plan_burn_in(BurnIn(level=level), cards or (H100,), "580.95.05", seen)


def test_nothing_is_tested_unless_it_is_asked_for() -> None:
    assert planned(None) is None
    assert burn_in.plan_burn_in(BurnIn(level=1), (), None, HOST) is None


@pytest.mark.parametrize(
    ("driver", "card", "cuda"),
    [("580.95.05", H100, 13), ("535.161.08", H100, 12), ("580.95.05", V100, 12)],
)
def test_dcgm_is_that_of_the_cuda_of_driver_and_cards(driver: str, card: gpus.Gpu, cuda: int) -> None:
    assert burn_in.packages(driver, (card,)) == (
        f"datacenter-gpu-manager-4-cuda{cuda}",
        f"datacenter-gpu-manager-4-proprietary-cuda{cuda}",
    )


def test_a_consumer_card_is_tested_at_level_1_and_the_operator_is_told() -> None:
    settings = BurnIn(level=3)
    plan = burn_in.plan_burn_in(settings, (RTX,), "580.95.05", HOST)
    assert plan and plan.level == 1
    (sentence,) = burn_in.warnings(settings, plan, (RTX,), HOST)
    assert sentence == "burn_in.level: DCGM tests RTX 4090 at level 1 only, so level 3 is not run."


def test_gpus_in_use_are_not_tested_now() -> None:
    busy = replace(HOST, gpu_holders=("812 python3 /vllm-chat.service",))
    plan = planned(2, busy)
    assert plan and plan.needed and plan.waits == "the GPUs are in use by 812 python3 /vllm-chat.service"
    (sentence,) = burn_in.warnings(BurnIn(level=2), plan, (H100,), busy)
    assert sentence.startswith("burn_in: the diagnostic waits: the GPUs are in use by")


@pytest.mark.parametrize("daemon", ["persistenced", "dcgm", "fabricmanager"])
def test_the_drivers_own_daemons_put_no_test_off(daemon: str) -> None:
    holder = f"812 nv-{daemon} 0::/system.slice/nvidia-{daemon}.service"
    plan = planned(2, replace(HOST, gpu_holders=(holder,)))
    assert plan and plan.needed and not plan.waits


PASSED = record(sample("eight-gpus-level1"))


@pytest.mark.parametrize(
    ("text", "level", "needed"),
    [
        ("", 1, True),
        (PASSED, 1, False),
        (PASSED, 2, True),
        (record(sample("eight-gpus-level1"), level=3), 2, False),
        (record(sample("eight-gpus-level1"), driver="570.86.15"), 1, True),
        (record(sample("eight-gpus-level1"), gpus=["0000:18:00.0 0x2331"]), 1, True),
        (record(None), 1, True),
        (record(sample("gb10-level1")), 1, False),
    ],
)
def test_the_same_gpus_with_the_same_driver_are_tested_once(text: str, level: int, needed: bool) -> None:
    plan = planned(level, with_record(text))
    assert plan and plan.needed is needed


@pytest.mark.parametrize("name", ["gb10-level1", "gb10-level2", "gb10-level2-skipped"])
def test_a_setting_of_the_host_is_a_warning_and_no_failure(name: str) -> None:
    found = burn_in.read(record(sample(name)))
    assert found.failures == ()
    (sentence,) = found.warnings
    assert sentence.startswith(
        "burn-in: software failed on GPU 0: Persistence Mode: Persistence mode for GPU 0 is"
    )


def test_eight_gpus_that_pass_say_nothing() -> None:
    assert burn_in.read(PASSED) == burn_in.Findings((), ())


def test_a_failure_names_the_test_the_gpu_and_what_dcgm_says() -> None:
    result = sample("gb10-level2")
    entry = result["DCGM Diagnostic"]["test_categories"][1]["tests"][0]["results"][0]
    entry |= {
        "status": "Fail",
        "entity_id": 3,
        "warnings": [
            {"error_id": 12, "error_severity": 2, "warning": "Uncorrectable ECC memory error detected"}
        ],
    }
    found = burn_in.read(record(result))
    assert found.failures == ("burn-in: memory failed on GPU 3: Uncorrectable ECC memory error detected",)
    plan = planned(1, with_record(record(result)))
    assert plan and plan.needed


def test_version_3_names_gpus_by_another_word() -> None:
    result = sample("eight-gpus-level1")
    result["DCGM GPU Diagnostic"]["test_categories"][1]["tests"][0]["results"][5] |= {
        "status": "FAIL",
        "warnings": "Detected 1 row remapping failure",
    }
    found = burn_in.read(record(result))
    assert found.failures == ("burn-in: software failed on GPU 5: Detected 1 row remapping failure",)


def test_a_diagnostic_that_says_no_json_is_a_failure_in_its_own_words() -> None:
    words = "Error: unable to establish a connection"
    (sentence,) = burn_in.read(json.dumps({"level": 1, "gpus": [], "words": words})).failures
    assert f"dcgmi gave no result, but: {words}" in sentence
    assert burn_in.read("").failures


def test_what_dcgm_left_is_found_for_its_removal() -> None:
    settings = BurnIn(state="absent")
    assert burn_in.plan_burn_in(settings, (H100,), "580.95.05", HOST) == burn_in.BurnInPlan(None)
    there = replace(HOST, packages={"datacenter-gpu-manager-4-cuda13": "1:4.4.1-1", "curl": "8"})
    plan = burn_in.plan_burn_in(settings, (H100,), "580.95.05", there)
    assert plan and plan.needed and plan.packages == ("datacenter-gpu-manager-4-cuda13",)
