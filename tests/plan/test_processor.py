"""Hosts without a GPU."""

from typing import Any

import pytest

from plan.answer import Decision, Machine, Refusal, Wish
from plan.memory import GIB
from plan.resolve import decide


def decided(memory_gib: float | None = 32.0, **wish: Any) -> Decision:
    answer = decide(Machine(os="debian12", memory_gib=memory_gib), Wish(**wish))
    assert isinstance(answer, Decision), answer
    return answer


def test_a_host_without_a_gpu_gets_cpu_builds_of_both() -> None:
    answer = decided()
    assert (answer.accelerator, answer.driver, answer.cuda_tag) == ("cpu", None, "cpu")
    assert (answer.torch, answer.vllm) == ("2.13.0+cpu", "0.32.0+cpu")
    assert answer.torch_index == "https://download.pytorch.org/whl/cpu"
    assert answer.vllm_index == "https://wheels.vllm.ai/0.32.0/cpu"
    assert any("not verified" in warning for warning in answer.warnings)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_operators_python_is_taken(python: str) -> None:
    assert decided(python=python).python == python


def test_no_compiler_is_assumed_and_the_cache_is_bounded() -> None:
    flags = decided(model="Qwen/Qwen2.5-0.5B-Instruct").flags
    assert flags["enforce_eager"] is True
    assert 64 * 1024**2 <= flags["kv_cache_memory_bytes"] <= 4 * GIB


def test_a_small_model_gets_a_small_cache() -> None:
    # 16 contexts of 8192 tokens of 12 KiB
    assert decided(model="Qwen/Qwen2.5-0.5B-Instruct").flags["kv_cache_memory_bytes"] == 16 * 8192 * 12 * 1024


def test_a_wished_cache_is_taken() -> None:
    flags = decided(model="Qwen/Qwen2.5-0.5B-Instruct", kv_cache_memory_bytes=256 * 1024**2).flags
    assert flags["kv_cache_memory_bytes"] == 256 * 1024**2


def test_the_context_is_no_longer_than_what_the_cache_holds() -> None:
    answer = decided(16.0, model="Qwen/Qwen2.5-7B-Instruct")
    assert answer.memory
    assert answer.flags["max_model_len"] == answer.memory.max_model_len <= answer.memory.kv_tokens


def test_a_model_larger_than_the_host_is_refused() -> None:
    answer = decide(Machine(os="debian12", memory_gib=8.0), Wish(model="Qwen/Qwen2.5-7B-Instruct"))
    assert isinstance(answer, Refusal)
    assert "14.19 GiB of weights" in answer.failed[0].fact


def test_a_pinned_vllm_without_a_cpu_build_names_those_that_have_one() -> None:
    answer = decide(Machine(os="debian12"), Wish(vllm="0.19.1"))
    assert isinstance(answer, Refusal)
    assert "0.32.0+cpu" in answer.failed[0].fact
    assert answer.fixes == ("Use vLLM 0.32.0+cpu.",)


def test_float32_takes_twice_the_memory_and_the_same_disk() -> None:
    usual, doubled = (
        decided(64.0, model="Qwen/Qwen2.5-7B-Instruct", dtype=dtype).memory for dtype in (None, "float32")
    )
    assert usual and doubled
    assert doubled.weights_gib == pytest.approx(2 * usual.weights_gib, abs=0.02)
    assert doubled.disk_gib == usual.disk_gib
    answer = decide(
        Machine(os="debian12", memory_gib=24.0), Wish(model="Qwen/Qwen2.5-7B-Instruct", dtype="float32")
    )
    assert isinstance(answer, Refusal)


def test_one_long_context_is_held_where_the_host_has_the_memory() -> None:
    answer = decided(256.0, model="Qwen/Qwen2.5-7B", max_model_len=131072)
    assert answer.memory and answer.memory.kv_tokens >= 131072
    assert answer.flags["kv_cache_memory_bytes"] > 4 * GIB
