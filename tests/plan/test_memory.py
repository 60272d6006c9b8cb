"""Memory arithmetic."""

import pytest

from plan import memory


def test_kv_heads_are_split_over_the_ranks() -> None:
    # Llama 3.1 8B: 32 layers, 8 KV heads of 128, two bytes: 128 KiB a token
    whole = memory.kv_bytes_per_token(layers=32, kv_heads=8, head_size=128)
    assert whole == 128 * 1024
    assert memory.kv_bytes_per_token(layers=32, kv_heads=8, head_size=128, tensor_parallel=4) == whole / 4


def test_fewer_kv_heads_than_ranks_are_repeated() -> None:
    four = memory.kv_bytes_per_token(layers=28, kv_heads=4, head_size=128, tensor_parallel=4)
    assert memory.kv_bytes_per_token(layers=28, kv_heads=4, head_size=128, tensor_parallel=8) == four


def test_an_fp8_cache_takes_half() -> None:
    fp8 = memory.BYTES_PER_ELEMENT["fp8"]
    half = memory.kv_bytes_per_token(layers=32, kv_heads=8, head_size=128, bytes_per_element=fp8)
    assert half == 64 * 1024


def test_a_latent_cache_does_not_depend_on_heads() -> None:
    # DeepSeek-V3: 61 layers, a latent of 512 and 64 rotary positions, two bytes
    assert memory.latent_kv_bytes_per_token(layers=61, kv_lora_rank=512, rope_head_size=64) == 61 * 576 * 2


@pytest.mark.parametrize(("context", "full_layers"), [(1000, 1.0), (4096, 1.0), (8192, 0.75)])
def test_sliding_layers_keep_no_more_than_their_window(context: int, full_layers: float) -> None:
    kept = memory.kv_bytes_for_context(
        context=context, bytes_per_token=10, sliding_share=0.5, sliding_window=4096
    )
    assert kept == pytest.approx(context * 10 * full_layers)


def test_the_last_stage_of_a_pipeline_holds_the_layers_that_do_not_divide() -> None:
    # Llama 3.1 8B in 4 stages: vLLM 0.19 reports 4.26 GiB, more than a quarter of 14.99
    weights = memory.weights_per_rank_bytes(
        weight_bytes=16_060_522_496,
        embedding_bytes=128256 * 4096 * 2,
        tied_embeddings=False,
        layers=32,
        tensor_parallel=1,
        pipeline_parallel=4,
    )
    assert memory.gib(weights) == pytest.approx(4.26, rel=0.01)
