"""Hosts without a GPU: vLLM on the CPU. And the parts of a decision that do not depend on a GPU."""

from collections.abc import Iterator
from typing import TypedDict

from plan import flags, memory, packages
from plan.answer import Decision, Failure, MemoryFit, Refusal
from plan.candidates import CPU, Candidate
from plan.constraints import Host
from plan.fit import LEAST_CONTEXT, as_loaded, disk_gib, lora_gib
from plan.models import ModelFacts
from plan.reasons import reasons

_CPU_SOURCE = "measured with vLLM 0.32.0 on a CPU"
# An installed environment: measured for CPU builds; for CUDA builds the 4 to 5 GB of wheels unpacked.
_ENVIRONMENT_GIB = {CPU: 3.4, "cuda": 14.0}


class Pins(TypedDict):
    """The versions and indexes of a decision."""

    cuda_tag: str
    torch: str
    torch_index: str | None
    vllm: str
    vllm_index: str | None
    python: str
    transformers: str | None
    accelerate: str | None
    modelscope: str | None
    pins: dict[str, str]
    resolved_before: str | None
    environment_gib: float


def pins(host: Host, candidate: Candidate) -> Pins:
    """The versions and indexes that a candidate stands for."""
    closure = candidate.vllm.pins
    accelerator = CPU if candidate.build.variant == CPU else "cuda"
    return {
        "cuda_tag": candidate.torch_build.tag,
        "torch": candidate.torch_version,
        "torch_index": candidate.torch_build.url,
        "vllm": candidate.vllm_version,
        "vllm_index": candidate.build.url,
        "python": host.wish.python or candidate.pythons[0],
        "transformers": closure.get("transformers"),
        "accelerate": closure.get("accelerate"),
        "modelscope": packages.modelscope(),
        "pins": {**closure, "modelscope": packages.modelscope()},
        "resolved_before": candidate.vllm.resolved_before or None,
        "environment_gib": _ENVIRONMENT_GIB[accelerator],
    }


def notices(host: Host) -> Iterator[str]:
    """What is not known of the host or the model."""
    if host.glibc is None:
        yield "The host's C library is not known and was not checked."
    if host.wish.model and host.model is None:
        yield f"{host.wish.model} is in no table and its files were not read: its memory was not checked."
    if host.model and host.model.mixture_of_experts and host.wish.lora_slots:
        yield f"{host.model.id} has experts: what adapters of these take of the memory was not counted."
    if host.model and not host.model.verified:
        yield f"The size of {host.model.id} is computed, not read from its hub."


def decide(host: Host, candidate: Candidate, risks: tuple[str, ...]) -> Decision | Refusal:
    """The decision for a host without a GPU."""
    fit = _fit(host, host.model) if host.model else None
    if isinstance(fit, Failure):
        return Refusal((fit,))
    return Decision(
        accelerator="cpu",
        engine="vllm",
        driver=None,
        flags=flags.for_cpu(host, fit),
        memory=fit,
        warnings=(*risks, *notices(host), *_of_no_use(host)),
        why=reasons(host, candidate, None, None),
        **pins(host, candidate),
    )


def _cache_share(host: Host, cache_gib: float) -> str:
    if host.wish.kv_cache_memory_bytes:
        return f"and the KV cache is set to {cache_gib:.2f}"
    return "half of them for the KV cache"


def _of_no_use(host: Host) -> Iterator[str]:
    if host.wish.kv_cache_dtype:
        yield "kv_cache_dtype is for GPUs: on a CPU the cache has the type of the weights."


def _fit(host: Host, model: ModelFacts) -> MemoryFit | Failure:
    """Weights, cache and server in the host's memory; the context is cut to what the cache holds."""
    cache_bytes, host_gib = flags.cpu_cache_bytes(host), host.machine.memory_gib
    loaded = as_loaded(model, host.wish.dtype)
    weights_gib, cache_gib = memory.gib(loaded.weight_bytes), memory.gib(cache_bytes)
    server_gib = flags.CPU_SERVER_GIB + lora_gib(model, host.wish.lora_slots, host.wish.lora_rank)
    needed_gib = weights_gib + cache_gib + server_gib
    tokens = int(cache_bytes / flags.cpu_bytes_per_token(host, model))
    least = host.wish.max_model_len or min(LEAST_CONTEXT, model.context)
    if (host_gib is not None and needed_gib > host_gib) or tokens < least:
        left_gib = max(0.0, (host_gib or 0.0) - weights_gib - server_gib)
        fact = (
            f"{model.id} takes {weights_gib:.2f} GiB of weights and the server {server_gib:.1f}; of "
            f"{host_gib or 0.0:.2f} GiB {left_gib:.2f} are left, {_cache_share(host, cache_gib)}"
        )
        return Failure(f"a context of {least} tokens fits in the host's memory", fact, _CPU_SOURCE)
    return MemoryFit(
        weights_gib=round(weights_gib, 2),
        weights_gib_per_gpu=round(weights_gib, 2),
        kv_gib_per_gpu=round(cache_gib, 2),
        reserve_gib=round(server_gib, 2),
        usable_gib=round(host_gib if host_gib is not None else needed_gib, 2),
        tensor_parallel=1,
        pipeline_parallel=1,
        max_model_len=min(flags.cpu_context(host) or model.context, tokens),
        kv_tokens=tokens,
        gpu_memory_utilization=0.0,
        disk_gib=disk_gib(model),
    )
