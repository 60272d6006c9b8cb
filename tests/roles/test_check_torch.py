"""The torch check's own reckoning, without torch; with torch it is tried in tests/e2e/test_torch_check.py."""

import importlib.util
import math
from types import ModuleType
from typing import Any

import pytest

from ops.render import TEMPLATES

FLOOR = {"tflops": 297.0, "memory_gb_s": 1675, "link_gb_s": 135}
H100 = {
    "device": "cuda:1",
    "name": "NVIDIA H100 80GB HBM3",
    "dtype": "bfloat16",
    "in_use": False,
    "floor": FLOOR,
    "tflops": 680.0,
    "memory_gb_s": 2700.0,
    "link_gb_s": 370.0,
}


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """The program as a module; it imports torch only when it computes."""
    spec = importlib.util.spec_from_file_location("check_torch", TEMPLATES / "torch/check_torch.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("capability", "kind"),
    [
        ((6, 1), "float32"),
        ((7, 0), "float16"),
        ((7, 5), "float16"),
        ((8, 0), "bfloat16"),
        ((12, 0), "bfloat16"),
    ],
)
def test_a_card_is_measured_in_the_type_that_it_is_good_at(
    check: ModuleType, capability: tuple[int, int], kind: str
) -> None:
    assert check.type_for(capability) == kind


def test_a_healthy_card_reaches_its_floors(check: ModuleType) -> None:
    assert check.shortfalls(H100) == []


@pytest.mark.parametrize(
    ("figure", "value", "says"),
    [
        ("tflops", 120.0, "reaches 120 TFLOP/s in bfloat16, expected are 297 or more"),
        ("memory_gb_s", 900.0, "reaches 900 GB/s of memory, expected are 1675 or more"),
        ("link_gb_s", 26.0, "reaches 26 GB/s to the next GPU, expected are 135 or more"),
    ],
)
def test_a_figure_below_its_floor_is_one_sentence(
    check: ModuleType, figure: str, value: float, says: str
) -> None:
    (sentence,) = check.shortfalls(H100 | {figure: value})
    assert sentence.startswith("cuda:1 (NVIDIA H100 80GB HBM3) ") and says in sentence


@pytest.mark.parametrize(
    "changed",
    [
        {"in_use": True, "tflops": 1.0},
        {"floor": None, "tflops": 1.0},
        {"floor": FLOOR | {"link_gb_s": None}, "link_gb_s": 1.0},
    ],
)
def test_a_card_at_work_or_without_a_known_peak_has_no_floor(
    check: ModuleType, changed: dict[str, Any]
) -> None:
    assert check.shortfalls(H100 | changed) == []


@pytest.mark.parametrize(("error", "worst"), [(2e-2, 0.0), (1e-3, 0.2), (math.nan, 0.0), (1e-3, math.nan)])
def test_a_product_outside_its_tolerance_is_wrong(check: ModuleType, error: float, worst: float) -> None:
    with pytest.raises(check.WrongError, match=r"^cuda:0: .*1024x1024 product in bfloat16 is off by"):
        check.judge("cuda:0", 1024, "bfloat16", error, worst)
    check.judge("cuda:0", 1024, "bfloat16", 1e-3, 1e-3)


def test_little_free_memory_makes_everything_smaller(check: ModuleType) -> None:
    side, copied, sent = check.sizes(2 << 30)
    # three matrices of two bytes, two buffers, and in another process three of what is sent
    assert 3 * 2 * side**2 < 256 << 20 and copied <= 128 and sent <= 16
    assert check.sizes(80 << 30) > (side, copied, sent)


def test_a_measurement_takes_about_a_second_however_fast_the_card(check: ModuleType) -> None:
    assert [check.times_for(seconds) for seconds in (5.0, 0.4, 0.001, 0.0)] == [1, 3, 1000, 1000]


def test_copies_go_round_all_gpus_once(check: ModuleType) -> None:
    assert check.ring(1) == []
    assert check.ring(3) == [(0, 1), (1, 2), (2, 0)]


def test_the_bandwidth_of_a_sum_is_reckoned_as_nccl_does(check: ModuleType) -> None:
    # 8 ranks, 1 GB in 10 ms: 2 * 7/8 GB on every rank's link
    assert check.bus_gb_s(10**9, 0.01, 8) == pytest.approx(175)


def test_ranks_talk_over_loopback_only(check: ModuleType) -> None:
    environment = check.loopback({"HOME": "/x", "NCCL_SOCKET_IFNAME": "eth0"})
    assert environment["NCCL_SOCKET_IFNAME"] == environment["GLOO_SOCKET_IFNAME"] == "lo"
    assert environment["HOME"] == "/x"
