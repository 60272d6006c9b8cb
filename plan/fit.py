"""Does a model fit on these GPUs, how is it split, and how long a context does that leave?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from plan import memory, profile
from plan.answer import Failure, MemoryFit
from plan.gpus import Gpu
from plan.models import ModelFacts
from plan.profile import Profile

BLOCK_TOKENS = 16
# A server that cannot hold this many tokens of one request is of no use.
LEAST_CONTEXT = 512
# The hub's other files beside the weights: tokenizer, configuration, licence.
OTHER_FILES_GIB = 0.05
_VOCABULARY_PADDING = 64
FORMULA = "vLLM's own: requested memory less weights, peak activation and CUDA graphs (gpu_worker.py)"
HEADS_RULE = "vLLM: attention heads, KV heads and vocabulary divide by the tensor-parallel size"


@dataclass(frozen=True)
class FitWish:
    """What of the fit is fixed. None: to be decided."""

    vllm: str = profile.NEWEST
    gpus: int | None = None
    tensor_parallel: int | None = None
    max_model_len: int | None = None
    utilization: float | None = None
    kv_cache_dtype: str | None = None
    enforce_eager: bool = False
    lora_slots: int = 0
    lora_rank: int = 0
    # of each rank, whatever the share of the memory would leave
    cache_bytes: int | None = None


def decide_fit(model: ModelFacts, gpus: tuple[Gpu, ...], wish: FitWish) -> MemoryFit | tuple[Failure, ...]:
    """The split over the fewest GPUs that leaves the longest context, or why none fits.

    Args:
        model: the model's shape and size.
        gpus: the GPUs that it may use; the smallest of them bounds every rank.
        wish: what is fixed already.
    """
    if wish.max_model_len and wish.max_model_len > model.context:
        fact = f"{model.id} has {model.context} positions"
        return (Failure(f"a context of {wish.max_model_len} tokens", fact, model.source),)
    splits = list(_splits(model, len(gpus), wish))
    if not splits:
        return (_no_split(model, len(gpus), wish),)
    smallest = min(gpus, key=lambda gpu: gpu.memory_gib)
    fits = [Split(model, smallest, wish, tensor, pipeline).fit() for tensor, pipeline in splits]
    wanted = wish.max_model_len or model.context
    least = wish.max_model_len or min(LEAST_CONTEXT, model.context)
    enough = [fit for fit in fits if fit.max_model_len >= least]
    if not enough:
        nearest = max(fits, key=lambda fit: (fit.max_model_len, -fit.weights_gib_per_gpu))
        return (_too_large(model, smallest, nearest, least),)
    # layers in stages keep all but one of the GPUs waiting: only when splitting each layer does not do
    flat = [fit for fit in enough if fit.pipeline_parallel == 1]
    return max(
        flat or enough,
        key=lambda fit: (min(fit.max_model_len, wanted), -fit.pipeline_parallel, -ranks(fit)),
    )


def ranks(fit: MemoryFit) -> int:
    """How many GPUs a split takes."""
    return fit.tensor_parallel * fit.pipeline_parallel


def _splits(model: ModelFacts, count: int, wish: FitWish) -> Iterator[tuple[int, int]]:
    """Pairs (tensor parallel, pipeline parallel) that vLLM accepts and the GPUs allow."""
    limit = min(count, wish.gpus or count)
    for tensor in range(1, limit + 1):
        if wish.tensor_parallel not in (None, tensor) or not divides(model, tensor):
            continue
        for pipeline in range(1, min(limit // tensor, model.layers) + 1):
            pinned = wish.tensor_parallel is not None and wish.gpus is None
            if wish.gpus in (None, tensor * pipeline) and not (pinned and pipeline > 1):
                yield tensor, pipeline


def divides(model: ModelFacts, tensor_parallel: int) -> bool:
    """Whether heads, vocabulary and the groups of a quantized model divide by the tensor-parallel size."""
    if model.attention_heads % tensor_parallel:
        return False
    if not model.kv_lora_rank and model.kv_heads % tensor_parallel and tensor_parallel % model.kv_heads:
        return False
    padded = math.ceil(model.vocabulary / _VOCABULARY_PADDING) * _VOCABULARY_PADDING
    if padded % tensor_parallel:
        return False
    group = model.quantization_group * tensor_parallel
    return not group or not any(width % group for width in _grouped(model))


def _grouped(model: ModelFacts) -> tuple[int, ...]:
    """Widths that are split and quantized in groups: of the layers, and of the experts in them."""
    return tuple(dict.fromkeys(filter(None, (model.intermediate_size, model.expert_size))))


@dataclass(frozen=True)
class Split:
    """A model split `tensor` x `pipeline` ways; sizes are those of the rank with the most layers."""

    model: ModelFacts
    gpu: Gpu
    wish: FitWish
    tensor: int = 1
    pipeline: int = 1

    @property
    def start(self) -> Profile:
        """What vLLM sets aside at start."""
        return Profile(self.wish.vllm, self.gpu)

    @property
    def utilization(self) -> float:
        """The share of the GPU's memory that vLLM may take."""
        return self.wish.utilization or self.start.utilization

    @property
    def usable_gib(self) -> float:
        """The memory that vLLM may take."""
        return self.gpu.memory_gib * self.utilization

    @property
    def weights_gib(self) -> float:
        """The weights of one rank."""
        return memory.gib(
            memory.weights_per_rank_bytes(
                weight_bytes=self.model.weight_bytes,
                embedding_bytes=self.model.vocabulary * self.model.hidden_size * 2,
                tied_embeddings=self.model.tied_embeddings,
                layers=self.model.layers,
                tensor_parallel=self.tensor,
                pipeline_parallel=self.pipeline,
            )
        )

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of KV cache that one token takes, no window applied."""
        return kv_bytes_per_token(self.model, self.tensor, self.pipeline, self.wish.kv_cache_dtype)

    def reserve_gib(self, context: int) -> float:
        """What is kept beside weights and cache when `max_model_len` is `context`."""
        reserve = self.start.reserve_gib(self.model, context, self.tensor, self.wish.enforce_eager)
        return reserve + lora_gib(self.model, self.wish.lora_slots, self.wish.lora_rank, self.pipeline)

    def cache_gib(self, context: int) -> float:
        """The KV cache that is left when `max_model_len` is `context`."""
        left = max(0.0, self.usable_gib - self.weights_gib - self.reserve_gib(context))
        given = self.wish.cache_bytes
        return min(left, memory.gib(given)) if given else left

    def longest_context(self) -> int:
        """The longest context of which one sequence fits in the cache that it leaves."""
        context = min(self.wish.max_model_len or self.model.context, self.model.context)
        longest = self._held_by(self.cache_gib(context), context)
        if longest == context or not self.start.first_engine:
            return longest
        # The V0 engine sets the more aside the longer the context, until it cuts prompts into chunks.
        return longest if longest > profile.CHUNKED_FROM_CONTEXT else self._longest_unchunked(context)

    def _longest_unchunked(self, context: int) -> int:
        low, high = 0, min(context, profile.CHUNKED_FROM_CONTEXT) // BLOCK_TOKENS
        while low < high:
            middle = (low + high + 1) // 2
            length = middle * BLOCK_TOKENS
            fits = self._held_by(self.cache_gib(length), length) >= length
            low, high = (middle, high) if fits else (low, middle - 1)
        return low * BLOCK_TOKENS

    def _held_by(self, cache_gib: float, context: int) -> int:
        """The longest context, at most `context`, of which one sequence fits in a cache."""
        model, per_token, budget = self.model, self.kv_bytes_per_token, cache_gib * memory.GIB
        share = model.sliding_layers / model.layers
        needed = memory.kv_bytes_for_context(
            context=context,
            bytes_per_token=per_token,
            sliding_share=share,
            sliding_window=model.sliding_window,
        )
        if needed <= budget:
            return context
        in_windows = per_token * share * min(model.sliding_window, context)
        beyond = (budget - in_windows) / (per_token * (1 - share)) if share < 1 else 0.0
        return _whole_blocks(beyond if beyond > model.sliding_window else budget / per_token)

    def fit(self) -> MemoryFit:
        """Where the memory goes."""
        longest = self.longest_context()
        at_least_a_block = max(longest, BLOCK_TOKENS)
        cache_gib = self.cache_gib(at_least_a_block)
        return MemoryFit(
            weights_gib=round(memory.gib(self.model.weight_bytes), 2),
            weights_gib_per_gpu=round(self.weights_gib, 2),
            kv_gib_per_gpu=round(cache_gib, 2),
            reserve_gib=round(self.reserve_gib(at_least_a_block), 2),
            usable_gib=round(self.usable_gib, 2),
            tensor_parallel=self.tensor,
            pipeline_parallel=self.pipeline,
            max_model_len=longest,
            kv_tokens=_whole_blocks(cache_gib * memory.GIB / self.kv_bytes_per_token),
            gpu_memory_utilization=self.utilization,
            disk_gib=disk_gib(self.model),
        )


def as_loaded(model: ModelFacts, dtype: str | None) -> ModelFacts:
    """The model as it lies in memory: in float32 with twice the bytes of its files."""
    if dtype != "float32" or model.quantization:
        return model
    return replace(model, weight_bytes=2 * model.weight_bytes)


def disk_gib(model: ModelFacts) -> float:
    """What the files of a model take."""
    return round(memory.gib(model.weight_bytes) + OTHER_FILES_GIB, 2)


def lora_gib(model: ModelFacts, slots: int, rank: int, pipeline: int = 1) -> float:
    """What vLLM sets aside at start for LoRA adapters, on the rank with the most layers."""
    return memory.gib(
        memory.lora_bytes(
            slots=slots,
            rank=rank,
            layers=math.ceil(model.layers / pipeline),
            hidden_size=model.hidden_size,
            intermediate_size=model.intermediate_size,
            query_size=model.attention_heads * model.head_size,
            key_value_size=model.kv_heads * model.head_size,
            vocabulary=model.vocabulary,
        )
    )


def kv_bytes_per_token(model: ModelFacts, tensor: int, pipeline: int, kv_cache_dtype: str | None) -> float:
    """Bytes of KV cache that one token takes on the rank with the most layers, no window applied."""
    element = memory.BYTES_PER_ELEMENT.get(kv_cache_dtype or "auto", memory.BYTES_PER_ELEMENT["auto"])
    layers = math.ceil(model.layers / pipeline)
    if model.kv_lora_rank:
        return memory.latent_kv_bytes_per_token(
            layers=layers,
            kv_lora_rank=model.kv_lora_rank,
            rope_head_size=model.rope_head_size,
            bytes_per_element=element,
        )
    return memory.kv_bytes_per_token(
        layers=layers,
        kv_heads=model.kv_heads,
        head_size=model.head_size,
        bytes_per_element=element,
        tensor_parallel=tensor,
    )


def _whole_blocks(tokens: float) -> int:
    return max(0, int(tokens) // BLOCK_TOKENS * BLOCK_TOKENS)


def _no_split(model: ModelFacts, count: int, wish: FitWish) -> Failure:
    size = wish.tensor_parallel or wish.gpus or count
    if size > count:
        return Failure(f"{size} GPUs for the model", f"the host has {count}", "the host")
    fact = (
        f"{model.id} has {model.attention_heads} attention heads, {model.kv_heads} KV heads and a vocabulary "
        f"of {model.vocabulary}"
    )
    if model.quantization_group:
        widths = " and ".join(map(str, _grouped(model)))
        fact += f", and quantization groups of {model.quantization_group} in {widths}"
    return Failure(f"the model splits over {size} GPUs", fact, HEADS_RULE)


def _too_large(model: ModelFacts, gpu: Gpu, best: MemoryFit, least: int) -> Failure:
    count = ranks(best)
    each = f"each of {count} GPUs" if count > 1 else "the GPU"
    left = f"a context of {best.max_model_len} tokens fits" if best.max_model_len else "no KV cache is left"
    fact = (
        f"{model.id} takes {best.weights_gib_per_gpu} GiB of weights and {best.reserve_gib} GiB of reserve "
        f"on {each}, {best.usable_gib} GiB of {gpu.name} are usable: {left}"
    )
    return Failure(f"a context of {least} tokens fits in GPU memory", fact, FORMULA)
