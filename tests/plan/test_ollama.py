"""Decisions for Ollama."""

from typing import Any

import pytest

from plan.answer import Decision, Machine, Refusal, Wish
from plan.gpus import lookup
from plan.resolve import decide


def answered(*names: str, model: str = "qwen2.5:7b", **fields: Any) -> Decision | Refusal:
    machine = Machine(gpus=tuple(lookup(name) for name in names), **({"os": "debian12"} | fields))
    return decide(machine, Wish(engine="ollama", model=model, manage_driver=machine.driver is None))


def decided(*names: str, **fields: Any) -> Decision:
    answer = answered(*names, **fields)
    assert isinstance(answer, Decision), answer
    return answer


def test_there_are_no_python_packages_in_it() -> None:
    answer = decided("L40S", driver="580.95.05")
    assert (answer.engine, answer.vllm, answer.torch, answer.python) == ("ollama", None, None, None)


@pytest.mark.parametrize(
    ("gpu", "driver", "works"),
    [
        ("L40S", "550.127.05", True),
        ("L40S", "545.23.08", False),
        ("GTX 1080 Ti", "570.124.06", True),
        ("GTX 1080 Ti", "550.127.05", False),
        ("V100", "550.127.05", True),
    ],
)
def test_drivers_that_ollama_runs_on(gpu: str, driver: str, works: bool) -> None:
    assert answered(gpu, driver=driver).ok is works


def test_a_driver_that_would_be_installed_is_held_to_the_same() -> None:
    """Debian 12's own is of branch 535."""
    wish = Wish(engine="ollama", model="qwen2.5:7b", manage_driver=True, driver_branches=(535,))
    answer = decide(Machine(gpus=(lookup("L40S"),), os="debian12"), wish)
    assert isinstance(answer, Refusal)
    assert answer.failed[0].constraint == "Ollama needs driver 550 for L40S"
    assert answer.failed[0].fact.endswith("give this host branch 535")


def test_a_driver_too_old_for_it_names_the_one_to_install() -> None:
    answer = answered("GTX 1080 Ti", driver="550.127.05")
    assert isinstance(answer, Refusal)
    assert answer.failed[0].constraint == "Ollama needs driver 570 for GTX 1080 Ti"
    assert answer.fixes == ("Let driver branch 580 with proprietary modules be installed.",)


def test_a_tag_that_fits_on_one_gpu_stays_on_one() -> None:
    answer = decided("RTX 3090", "RTX 3090", driver="580.95.05")
    assert answer.memory and answer.memory.pipeline_parallel == 1


def test_a_tag_that_does_not_is_spread_evenly() -> None:
    answer = decided("RTX 3090", "RTX 3090", driver="580.95.05", model="qwen2.5:72b", memory_gib=64.0)
    assert answer.memory
    assert answer.memory.pipeline_parallel == 2
    assert answer.memory.weights_gib_per_gpu == pytest.approx(answer.memory.weights_gib / 2, rel=0.01)


def test_what_is_left_over_runs_on_the_cpu_and_is_said() -> None:
    answer = decided("RTX 3090", driver="580.95.05", model="qwen2.5:72b", memory_gib=64.0)
    assert any("runs on the CPU, slowly" in warning for warning in answer.warnings)


def test_what_fits_nowhere_is_refused() -> None:
    answer = answered("RTX 3090", driver="580.95.05", model="qwen2.5:72b", memory_gib=8.0)
    assert isinstance(answer, Refusal) and "the tag fits" in answer.failed[0].constraint


def test_a_host_without_a_gpu_serves_small_tags() -> None:
    answer = decided(model="qwen2.5:0.5b", memory_gib=4.0)
    assert (answer.accelerator, answer.driver) == ("cpu", None)
    refusal = answered(model="qwen2.5:72b", memory_gib=32.0)
    assert isinstance(refusal, Refusal)


def test_an_unknown_tag_is_served_without_its_size_and_says_so() -> None:
    answer = decided("L40S", driver="580.95.05", model="someone:7b")
    assert answer.memory is None
    assert any("not in the tables" in warning for warning in answer.warnings)
