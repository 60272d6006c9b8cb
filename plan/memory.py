"""How much memory a model takes, after vLLM's own formulas. Sizes in bytes or GiB, as named."""

import math

GIB = 1024**3

BYTES_PER_ELEMENT = {
    "auto": 2.0,
    "half": 2.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "float32": 4.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
}


def gib(size_bytes: float) -> float:
    """Bytes as GiB."""
    return size_bytes / GIB


def kv_bytes_per_token(
    *,
    layers: int,
    kv_heads: int,
    head_size: int,
    value_head_size: int | None = None,
    bytes_per_element: float = 2.0,
    tensor_parallel: int = 1,
) -> float:
    """Bytes that one token takes in the KV cache of one GPU, over `layers` attention layers.

    KV heads are split over the tensor-parallel ranks and repeated when there are fewer heads than ranks.
    """
    heads_per_rank = max(1, math.ceil(kv_heads / tensor_parallel))
    return layers * heads_per_rank * (head_size + (value_head_size or head_size)) * bytes_per_element


def latent_kv_bytes_per_token(
    *, layers: int, kv_lora_rank: int, rope_head_size: int, bytes_per_element: float = 2.0
) -> float:
    """The same for multi-head latent attention: one latent vector, not split by tensor parallelism."""
    return layers * (kv_lora_rank + rope_head_size) * bytes_per_element
