"""Does a model fit on these GPUs, how is it split, and how long a context does that leave?"""

from collections.abc import Iterator
from dataclasses import dataclass

from plan import memory
from plan.answer import Failure, MemoryFit
from plan.gpus import Gpu
from plan.models import ModelFacts

DEFAULT_UTILIZATION = 0.9
BLOCK_TOKENS = 16
LEAST_CONTEXT = 512
FORMULA = "vLLM: requested memory less weights, peak activation and CUDA graphs"


@dataclass(frozen=True)
class FitWish:
    """What of the fit the operator has fixed. None: to be decided."""

    gpus: int | None = None
    tensor_parallel: int | None = None
    max_model_len: int | None = None
    utilization: float | None = None
    kv_cache_dtype: str | None = None
    enforce_eager: bool = False


def decide_fit(model: ModelFacts, gpus: tuple[Gpu, ...], wish: FitWish) -> MemoryFit | tuple[Failure, ...]:
    """The split over the fewest GPUs that leaves the longest context, or why none fits.

    Args:
        model: the model's shape and size.
        gpus: the GPUs that it may use; the smallest of them bounds every rank.
        wish: what is fixed already.
    """
    splits = list(_splits(model, len(gpus), wish))
    if not splits:
        return (_no_split(model, len(gpus), wish),)
    fits = [fit_split(model, gpus, wish, tensor, pipeline) for tensor, pipeline in splits]
    wanted = wish.max_model_len or model.context
    best = max(fits, key=lambda fit: (min(fit.max_model_len, wanted), -_ranks(fit), -fit.pipeline_parallel))
    least = min(wish.max_model_len or LEAST_CONTEXT, model.context)
    if best.max_model_len < least:
        return (_too_large(model, gpus, best, least),)
    return best


def _ranks(fit: MemoryFit) -> int:
    return fit.tensor_parallel * fit.pipeline_parallel


def _splits(model: ModelFacts, count: int, wish: FitWish) -> Iterator[tuple[int, int]]:
    """Pairs (tensor parallel, pipeline parallel) that vLLM accepts and the GPUs allow."""
    limit = min(count, wish.gpus or count)
    for tensor in range(1, limit + 1):
        if wish.tensor_parallel and tensor != wish.tensor_parallel:
            continue
        if not divides(model, tensor):
            continue
        for pipeline in range(1, limit // tensor + 1):
            if wish.gpus and tensor * pipeline != wish.gpus:
                continue
            if pipeline <= model.layers:
                yield tensor, pipeline


def divides(model: ModelFacts, tensor_parallel: int) -> bool:
    """Whether the heads, and the groups of a quantized model, divide by the tensor-parallel size."""
    if model.attention_heads % tensor_parallel:
        return False
    if model.kv_heads % tensor_parallel and tensor_parallel % model.kv_heads:
        return False
    group = model.quantization_group
    return not group or model.intermediate_size % (group * tensor_parallel) == 0


def fit_split(
    model: ModelFacts, gpus: tuple[Gpu, ...], wish: FitWish, tensor: int, pipeline: int
) -> MemoryFit:
    """The memory of one rank when the model is split `tensor` x `pipeline` ways."""
    total_gib = min(gpu.memory_gib for gpu in gpus)
    utilization = wish.utilization or DEFAULT_UTILIZATION
    usable_gib = total_gib * utilization
    weights_gib = memory.gib(model.weight_bytes) / (tensor * pipeline)
    reserve_gib = 1.5
    kv_gib = max(0.0, usable_gib - weights_gib - reserve_gib)
    per_token = kv_bytes_per_token(model, tensor, wish.kv_cache_dtype) / pipeline
    tokens = int(kv_gib * memory.GIB / per_token) // BLOCK_TOKENS * BLOCK_TOKENS
    longest = min(wish.max_model_len or model.context, tokens)
    return MemoryFit(
        weights_gib=round(memory.gib(model.weight_bytes), 2),
        weights_gib_per_gpu=round(weights_gib, 2),
        kv_gib_per_gpu=round(kv_gib, 2),
        reserve_gib=round(reserve_gib, 2),
        usable_gib=round(usable_gib, 2),
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        max_model_len=longest,
        kv_tokens=tokens,
        disk_gib=round(memory.gib(model.weight_bytes) * 1.02, 1),
    )


def kv_bytes_per_token(model: ModelFacts, tensor: int, kv_cache_dtype: str | None) -> float:
    """Bytes of KV cache that one token takes on one rank, over all layers."""
    element = memory.BYTES_PER_ELEMENT[kv_cache_dtype or "auto"]
    if model.kv_lora_rank:
        return memory.latent_kv_bytes_per_token(
            layers=model.layers,
            kv_lora_rank=model.kv_lora_rank,
            rope_head_size=model.rope_head_size,
            bytes_per_element=element,
        )
    return memory.kv_bytes_per_token(
        layers=model.layers,
        kv_heads=model.kv_heads,
        head_size=model.head_size,
        bytes_per_element=element,
        tensor_parallel=tensor,
    )


def _no_split(model: ModelFacts, count: int, wish: FitWish) -> Failure:
    size = wish.tensor_parallel or wish.gpus or count
    fact = (
        f"{model.id} has {model.attention_heads} attention and {model.kv_heads} KV heads; the host has "
        f"{count} GPU{'s' if count != 1 else ''}"
    )
    return Failure(f"the model splits over {size} GPUs", fact, model.source)


def _too_large(model: ModelFacts, gpus: tuple[Gpu, ...], best: MemoryFit, least: int) -> Failure:
    ranks = _ranks(best)
    fact = (
        f"{model.id}: {best.weights_gib_per_gpu} GiB of weights and {best.reserve_gib} GiB of reserve on "
        f"each of {ranks} GPU{'s' if ranks != 1 else ''}, {best.usable_gib} GiB usable on {gpus[0].name}; "
        f"a context of {max(best.max_model_len, 0)} tokens fits"
    )
    return Failure(f"a context of {least} tokens fits in GPU memory", fact, FORMULA)
