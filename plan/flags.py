"""The `vllm serve` flags and the environment that a decision entails."""

from typing import Any

from plan import memory
from plan.answer import MemoryFit
from plan.candidates import Candidate
from plan.constraints import Host
from plan.fit import kv_bytes_per_token
from plan.gpus import Capability

_BFLOAT16_FROM = Capability(8, 0)
_CPU_SEQUENCES = 16
_CPU_CACHE_LIMIT_BYTES = 4 * memory.GIB
_CPU_CONTEXT_LIMIT = 8192


def for_gpus(host: Host, fit: MemoryFit | None) -> dict[str, Any]:
    """Flags of a server on GPUs, without the leading dashes, underscores for dashes."""
    flags: dict[str, Any] = {}
    wish = host.wish
    if any(gpu.capability < _BFLOAT16_FROM for gpu in host.cards):
        flags["dtype"] = "half"
    if wish.dtype:
        flags["dtype"] = wish.dtype
    if fit:
        flags["tensor_parallel_size"] = fit.tensor_parallel
        if fit.pipeline_parallel > 1:
            flags["pipeline_parallel_size"] = fit.pipeline_parallel
        flags["max_model_len"] = fit.max_model_len
    elif wish.max_model_len:
        flags["max_model_len"] = wish.max_model_len
    if wish.gpu_memory_utilization:
        flags["gpu_memory_utilization"] = wish.gpu_memory_utilization
    if wish.kv_cache_dtype:
        flags["kv_cache_dtype"] = wish.kv_cache_dtype
    if wish.enforce_eager:
        flags["enforce_eager"] = True
    return flags


def for_cpu(host: Host) -> dict[str, Any]:
    """Flags of a server without a GPU: no compiler is assumed, and the KV cache is bounded in bytes."""
    wish, model = host.wish, host.model
    context = wish.max_model_len or (min(model.context, _CPU_CONTEXT_LIMIT) if model else None)
    flags: dict[str, Any] = {"enforce_eager": True}
    if wish.dtype:
        flags["dtype"] = wish.dtype
    if context:
        flags["max_model_len"] = context
    flags["kv_cache_memory_bytes"] = wish.kv_cache_memory_bytes or _cpu_cache_bytes(host, context)
    return flags


def _cpu_cache_bytes(host: Host, context: int | None) -> int:
    """Enough for a few whole contexts, at most 4 GiB and half of what the weights leave."""
    limit = _CPU_CACHE_LIMIT_BYTES
    if host.machine.memory_gib:
        weights_gib = memory.gib(host.model.weight_bytes) if host.model else 0.0
        left_gib = max(0.0, host.machine.memory_gib - weights_gib - 2.0)
        limit = min(limit, int(left_gib / 2 * memory.GIB))
    if host.model and context:
        wanted = int(_CPU_SEQUENCES * context * kv_bytes_per_token(host.model, 1, None))
        limit = min(limit, wanted)
    return max(limit, 64 * 1024**2)


def environment(candidate: Candidate) -> dict[str, str]:
    """Variables that the server needs: without nvcc FlashInfer cannot compile its sampler."""
    if "flashinfer-python" in candidate.vllm.pins:
        return {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    return {}
