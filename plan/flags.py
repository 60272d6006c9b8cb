"""The `vllm serve` flags and the environment that a decision entails."""

import math
from typing import Any

from plan import memory
from plan.answer import MemoryFit
from plan.candidates import Candidate
from plan.constraints import Host
from plan.fit import as_loaded, kv_bytes_per_token, lora_gib
from plan.gpus import Capability
from plan.models import ModelFacts

_BFLOAT16_FROM = Capability(8, 0)
_CPU_SEQUENCES = 16
_CPU_CACHE_LIMIT_BYTES = 4 * memory.GIB
_CPU_CACHE_UNKNOWN_MODEL_BYTES = 1 * memory.GIB
_CPU_CACHE_LEAST_BYTES = 64 * memory.MIB
# vLLM 0.32.0 serving a tiny model: Python, torch and the server together, resident.
CPU_SERVER_GIB = 1.5
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
        flags["gpu_memory_utilization"] = fit.gpu_memory_utilization
    else:
        if wish.max_model_len:
            flags["max_model_len"] = wish.max_model_len
        if wish.gpu_memory_utilization:
            flags["gpu_memory_utilization"] = wish.gpu_memory_utilization
    if wish.kv_cache_dtype:
        flags["kv_cache_dtype"] = wish.kv_cache_dtype
    if wish.enforce_eager:
        flags["enforce_eager"] = True
    return flags


def for_cpu(host: Host, fit: MemoryFit | None) -> dict[str, Any]:
    """Flags of a server without a GPU: no compiler is assumed, and the KV cache is bounded in bytes."""
    flags: dict[str, Any] = {"enforce_eager": True}
    if host.wish.dtype:
        flags["dtype"] = host.wish.dtype
    context = fit.max_model_len if fit else cpu_context(host)
    if context:
        flags["max_model_len"] = context
    flags["kv_cache_memory_bytes"] = cpu_cache_bytes(host)
    return flags


def cpu_context(host: Host) -> int | None:
    """The context on a CPU, where long ones take minutes; None when neither wish nor model says."""
    if host.wish.max_model_len or host.model is None:
        return host.wish.max_model_len
    return min(host.model.context, _CPU_CONTEXT_LIMIT)


def cpu_bytes_per_token(host: Host, model: ModelFacts) -> float:
    """Bytes of KV cache that one token takes on a CPU, where it has the type of the weights."""
    return kv_bytes_per_token(model, 1, 1, None if host.wish.dtype != "float32" else "float32")


def cpu_cache_bytes(host: Host) -> int:
    """The KV cache: a few whole contexts, at most half of what the weights leave of the memory.

    Of several contexts at most 4 GiB; one is held whatever it takes.
    """
    if host.wish.kv_cache_memory_bytes:
        return host.wish.kv_cache_memory_bytes
    model, context = host.model, cpu_context(host)
    limit = _CPU_CACHE_LIMIT_BYTES if model else _CPU_CACHE_UNKNOWN_MODEL_BYTES
    if model and context:
        one = math.ceil(context * cpu_bytes_per_token(host, model))
        limit = min(max(limit, one), _CPU_SEQUENCES * one)
    if host.machine.memory_gib:
        weights_gib = memory.gib(as_loaded(model, host.wish.dtype).weight_bytes) if model else 0.0
        lora = lora_gib(model, host.wish.lora_slots, host.wish.lora_rank) if model else 0.0
        left_gib = host.machine.memory_gib - weights_gib - CPU_SERVER_GIB - lora
        limit = min(limit, int(left_gib / 2 * memory.GIB))
    return max(limit, _CPU_CACHE_LEAST_BYTES)


def environment(candidate: Candidate) -> dict[str, str]:
    """Variables that the server needs: without nvcc FlashInfer cannot compile its sampler."""
    if "flashinfer-python" in candidate.vllm.pins:
        return {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    return {}
