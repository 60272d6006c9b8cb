"""Whether a model fits, how it is split, and with which context."""

from dataclasses import replace

import pytest

from plan import models
from plan.answer import Failure, MemoryFit
from plan.fit import FitWish, decide_fit, divides
from plan.gpus import lookup
from plan.models import ModelFacts


def known(model_id: str) -> ModelFacts:
    model = models.lookup(model_id)
    assert model
    return model


def fitted(model_id: str, gpu: str, count: int = 1, **wish: object) -> MemoryFit:
    found = decide_fit(known(model_id), (lookup(gpu),) * count, FitWish(**wish))  # type: ignore[arg-type]
    assert isinstance(found, MemoryFit), found
    return found


def refused(model_id: str, gpu: str, count: int = 1, **wish: object) -> Failure:
    found = decide_fit(known(model_id), (lookup(gpu),) * count, FitWish(**wish))  # type: ignore[arg-type]
    assert isinstance(found, tuple), found
    return found[0]


def test_the_parts_add_up_to_what_is_usable() -> None:
    found = fitted("Qwen/Qwen2.5-7B-Instruct", "L40S")
    parts = found.weights_gib_per_gpu + found.kv_gib_per_gpu + found.reserve_gib
    assert parts == pytest.approx(found.usable_gib, abs=0.03)


def test_the_fewest_gpus_that_hold_the_whole_context_are_taken() -> None:
    assert fitted("Qwen/Qwen2.5-7B-Instruct", "H100", 8).tensor_parallel == 1
    assert fitted("Qwen/Qwen2.5-72B-Instruct", "H100", 8).tensor_parallel == 4


def test_the_context_is_cut_to_what_one_sequence_can_hold() -> None:
    found = fitted("Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8", "RTX 4090")
    assert 512 <= found.max_model_len < 32768
    assert found.max_model_len <= found.kv_tokens


def test_the_cut_context_is_the_longest() -> None:
    model, gpu = "Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8", "RTX 4090"
    longest = fitted(model, gpu).max_model_len
    assert fitted(model, gpu, max_model_len=longest).max_model_len == longest
    assert "a context of" in refused(model, gpu, max_model_len=longest + 64).constraint


def test_a_wished_context_is_what_is_served() -> None:
    assert fitted("Qwen/Qwen2.5-7B-Instruct", "H100", max_model_len=4096).max_model_len == 4096


def test_an_fp8_cache_holds_twice_the_tokens() -> None:
    half = fitted("Qwen/Qwen2.5-7B-Instruct", "L40S").kv_tokens
    assert fitted("Qwen/Qwen2.5-7B-Instruct", "L40S", kv_cache_dtype="fp8").kv_tokens == pytest.approx(
        2 * half, rel=0.001
    )


def test_the_smallest_gpu_bounds_every_rank() -> None:
    model = known("Qwen/Qwen2.5-7B-Instruct")
    mixed = (lookup("A100 80GB"), lookup("A10"))
    alone = decide_fit(model, mixed[1:] * 2, FitWish(tensor_parallel=2))
    assert decide_fit(model, mixed, FitWish(tensor_parallel=2)) == alone


@pytest.mark.parametrize(
    ("model_id", "size", "accepted"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 4, True),
        ("Qwen/Qwen2.5-7B-Instruct", 7, False),  # 28 heads divide, 4 KV heads and the vocabulary do not
        ("Qwen/Qwen2.5-7B-Instruct", 8, False),  # 28 heads
        ("Qwen/Qwen2.5-0.5B-Instruct", 2, True),
        ("Qwen/Qwen2.5-72B-Instruct", 8, True),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", 8, True),  # padded for it: 29696 = 8 x 29 x 128
        ("Qwen/Qwen3-14B", 5, False),  # 40 heads divide, the vocabulary does not
        ("deepseek-ai/DeepSeek-R1", 8, True),
    ],
)
def test_tensor_parallel_sizes_that_vllm_accepts(model_id: str, size: int, accepted: bool) -> None:
    assert divides(known(model_id), size) is accepted


def test_groups_of_a_quantized_model_must_divide() -> None:
    model = replace(known("Qwen/Qwen2.5-72B-Instruct-AWQ"), intermediate_size=29568)
    assert not divides(model, 2)


def test_the_width_of_one_expert_divides_into_blocks_too() -> None:
    """vLLM ends with "gate's and up's weight = 192 is not divisible by ... block_n = 128", issue 17569."""
    model = known("Qwen/Qwen3-235B-A22B-FP8")
    assert [size for size in (1, 2, 4, 8) if divides(model, size)] == [1, 2, 4]
    fit = fitted("Qwen/Qwen3-235B-A22B-FP8", "L40S", 8)
    assert (fit.tensor_parallel, fit.pipeline_parallel) == (4, 2)


def test_stages_are_used_only_when_splitting_layers_does_not_do() -> None:
    flat = fitted("Qwen/Qwen2.5-7B-Instruct", "RTX 5080", 3)
    assert (flat.tensor_parallel, flat.pipeline_parallel) == (2, 1)
    # 14 GiB of weights on each of two leave no cache, and 40 heads do not split over three
    staged = fitted("Qwen/Qwen2.5-14B-Instruct", "RTX 5080", 3)
    assert (staged.tensor_parallel, staged.pipeline_parallel) == (1, 3)


def test_a_fixed_split_that_the_heads_forbid_is_refused_with_the_heads() -> None:
    failure = refused("Qwen/Qwen2.5-7B-Instruct", "L40S", 8, tensor_parallel=8)
    assert "28 attention heads" in failure.fact


def test_more_gpus_than_the_host_has_are_refused() -> None:
    assert refused("Qwen/Qwen2.5-7B-Instruct", "L40S", 1, tensor_parallel=2).fact == "the host has 1"


def test_a_model_too_large_says_where_the_memory_goes() -> None:
    failure = refused("Qwen/Qwen2.5-72B-Instruct", "H100")
    for part in ("135.43 GiB of weights", "of reserve", "72.77 GiB", "no KV cache is left"):
        assert part in failure.fact


def test_the_old_engine_sets_more_aside_for_a_longer_context() -> None:
    short = fitted("Qwen/Qwen2.5-1.5B-Instruct", "T4", vllm="0.8.5", max_model_len=4096)
    long = fitted("Qwen/Qwen2.5-1.5B-Instruct", "T4", vllm="0.8.5", max_model_len=32768)
    assert long.reserve_gib > short.reserve_gib


def test_sliding_windows_leave_room_for_a_longer_context() -> None:
    model = known("google/gemma-2-27b-it")
    gpu = (replace(lookup("H100"), memory_gib=62.5),)
    wish = FitWish(vllm="0.19.1")
    windowed = decide_fit(replace(model, context=131072), gpu, wish)
    whole = decide_fit(replace(model, context=131072, sliding_layers=0, sliding_window=0), gpu, wish)
    assert isinstance(windowed, MemoryFit) and isinstance(whole, MemoryFit)
    assert windowed.max_model_len > 1.2 * whole.max_model_len


def test_a_given_split_over_more_gpus_than_it_has_is_in_stages() -> None:
    fit = fitted("Qwen/Qwen2.5-72B-Instruct", "L40S", 4, gpus=4, tensor_parallel=2)
    assert (fit.tensor_parallel, fit.pipeline_parallel) == (2, 2)


def test_what_fits_nowhere_is_told_of_the_split_that_comes_nearest() -> None:
    assert "on each of 4 GPUs" in refused("Qwen/Qwen3-235B-A22B", "L40S", 4).fact


def test_a_cache_of_given_bytes_bounds_the_context() -> None:
    fit = fitted("meta-llama/Llama-3.1-8B-Instruct", "L40S", cache_bytes=2**30)
    assert fit.kv_gib_per_gpu == 1.0
    assert fit.max_model_len == 8192
