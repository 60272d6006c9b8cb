"""Ollama: which driver it needs, how large a tag is, and how it spreads over the GPUs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from plan import driver, memory, models, tables
from plan.answer import Decision, DriverChoice, Failure, MemoryFit, Reason, Refusal
from plan.compat import version
from plan.constraints import Host
from plan.fit import kv_bytes_per_token
from plan.gpus import Capability, Gpu

DEFAULT_CONTEXT = 4096
# What a GPU keeps for CUDA and the compute graph beside weights and cache. An estimate on the safe side.
_GPU_OVERHEAD_GIB = 1.0
_SERVER_GIB = 0.5
_MEMORY_SOURCE = "size of the tag, KV cache of its shape, and 1 GiB for each GPU (estimated)"


@dataclass(frozen=True)
class Tag:
    """A tag of Ollama's library; `shape` is the hub id of the model whose layers it has."""

    names: tuple[str, ...]
    size_gb: float
    shape: str
    source: str

    @property
    def size_gib(self) -> float:
        """The size in GiB."""
        return self.size_gb * 1e9 / memory.GIB


@lru_cache(maxsize=1)
def tags() -> dict[str, Tag]:
    """The tags whose sizes are known, by name."""
    table = tables.read("compat-ollama")["tag"]
    rows = [Tag(tuple(raw["names"]), raw["size_gb"], raw["shape"], raw["source"]) for raw in table]
    return {name: row for row in rows for name in row.names}


def least_driver(gpu: Gpu) -> tuple[str, str]:
    """The oldest driver branch that Ollama runs on with a GPU, and the source; empty when none."""
    for row in tables.read("compat-ollama")["driver"]:
        oldest = Capability.parse(row["oldest_capability"])
        if oldest <= gpu.capability <= Capability.parse(row["newest_capability"]):
            return row["least"], row["source"]
    return "", tables.read("compat-ollama")["driver"][0]["source"]


def decide(host: Host) -> Decision | Refusal:
    """The decision for `engine = "ollama"`."""
    choice = _driver(host)
    if isinstance(choice, Refusal):
        return choice
    tag = tags().get((host.wish.model or "").lower())
    fit = _fit(host, tag) if tag else None
    if isinstance(fit, Failure):
        return Refusal((fit,))
    return Decision(
        accelerator="cuda" if choice else "cpu",
        engine="ollama",
        driver=choice,
        environment={"OLLAMA_CONTEXT_LENGTH": str(host.wish.max_model_len or DEFAULT_CONTEXT)},
        memory=fit,
        warnings=tuple(_warnings(host, choice, tag, fit)),
        why=tuple(_reasons(host, choice, tag, fit)),
    )


def _driver(host: Host) -> DriverChoice | Refusal | None:
    machine, wish = host.machine, host.wish
    if not machine.gpus:
        return None
    failed: tuple[Failure, ...] = ()
    if machine.driver:
        there = f"the host has {machine.driver}"
        failed = driver.failures_of_kept(machine, machine.driver) or tuple(
            _too_old(host, machine.driver, there)
        )
        away = driver.pinned_away(machine, machine.driver, wish) if wish.manage_driver else None
        failed = (*failed, away) if away else failed
        if not failed:
            return driver.kept(machine, machine.driver)
    if not wish.manage_driver:
        none = Failure("an NVIDIA driver", "the host has none, and may not be given one", "the settings")
        return Refusal(failed or (none,))
    planned = driver.planned(machine, wish.driver_branches, wish.driver_modules)
    if not isinstance(planned, DriverChoice):
        return Refusal((*failed, *planned))
    given = f"driver.source and driver.branch give this host branch {planned.branch}"
    late = tuple(_too_old(host, str(planned.branch), given))
    return Refusal(late) if late else planned


def _too_old(host: Host, release: str, fact: str) -> Iterator[Failure]:
    """Why Ollama does not run with a release; `fact` says whose it is."""
    for gpu in host.cards:
        least, source = least_driver(gpu)
        if not least:
            old = f"{gpu.name} is of compute capability {gpu.capability}"
            yield Failure("Ollama needs compute capability 5.0", old, source)
        elif version(release).major < int(least):
            yield Failure(f"Ollama needs driver {least} for {gpu.name}", fact, source)


def _fit(host: Host, tag: Tag) -> MemoryFit | Failure:
    """On one GPU if it fits there, else over all of them evenly, else the rest in the host's memory."""
    context = host.wish.max_model_len or DEFAULT_CONTEXT
    cache_gib = _cache_gib(tag, context * host.wish.parallel, host.wish.kv_cache_dtype)
    machine = host.machine
    if not machine.gpus:
        return _fit_in_host(host, tag, context, cache_gib)
    least_gib = min(gpu.memory_gib for gpu in machine.gpus) - _GPU_OVERHEAD_GIB
    needed_gib = tag.size_gib + cache_gib
    count = 1 if needed_gib <= least_gib and not host.wish.spread else len(machine.gpus)
    count = min(count, host.wish.gpus or count)
    on_gpus_gib = min(needed_gib, count * least_gib)
    in_host_gib = needed_gib - on_gpus_gib
    if machine.memory_gib is not None and in_host_gib + _SERVER_GIB > machine.memory_gib:
        fact = (
            f"{host.wish.model} takes {needed_gib:.1f} GiB; {count} x {least_gib:.1f} GiB on GPUs and "
            f"{machine.memory_gib:.1f} GiB in the host"
        )
        return Failure("the tag fits in GPU and host memory", fact, _MEMORY_SOURCE)
    share = on_gpus_gib / needed_gib
    return _memory(tag, context, cache_gib, count, least_gib, share)


def _fit_in_host(host: Host, tag: Tag, context: int, cache_gib: float) -> MemoryFit | Failure:
    needed_gib = tag.size_gib + cache_gib + _SERVER_GIB
    available_gib = host.machine.memory_gib
    if available_gib is not None and needed_gib > available_gib:
        fact = f"{host.wish.model} takes {needed_gib:.1f} GiB, the host has {available_gib:.1f}"
        return Failure("the tag fits in the host's memory", fact, _MEMORY_SOURCE)
    fit = _memory(tag, context, cache_gib, 1, available_gib or needed_gib, 1.0)
    return replace(fit, reserve_gib=_SERVER_GIB)


def _memory(
    tag: Tag, context: int, cache_gib: float, count: int, usable_gib: float, share: float
) -> MemoryFit:
    return MemoryFit(
        weights_gib=round(tag.size_gib, 2),
        weights_gib_per_gpu=round(tag.size_gib * share / count, 2),
        kv_gib_per_gpu=round(cache_gib * share / count, 2),
        reserve_gib=_GPU_OVERHEAD_GIB,
        usable_gib=round(usable_gib, 2),
        tensor_parallel=1,
        pipeline_parallel=count,
        max_model_len=context,
        kv_tokens=context,
        gpu_memory_utilization=1.0,
        disk_gib=round(tag.size_gib, 2),
    )


def _cache_gib(tag: Tag, tokens: int, kv_cache_type: str | None) -> float:
    shape = models.lookup(tag.shape)
    return memory.gib(tokens * kv_bytes_per_token(shape, 1, 1, kv_cache_type)) if shape else 0.0


def _warnings(
    host: Host, choice: DriverChoice | None, tag: Tag | None, fit: MemoryFit | None
) -> Iterator[str]:
    yield from (gpu.note for gpu in host.cards if gpu.note)
    if choice and choice.action == "keep":
        yield from driver.warnings_of_kept(host.machine, choice.version or "")
    if host.wish.model and tag is None:
        yield f"The size of {host.wish.model} is not in the tables: its memory was not checked."
    if fit and choice and fit.weights_gib_per_gpu * fit.pipeline_parallel < fit.weights_gib * 0.999:
        outside = 1 - fit.weights_gib_per_gpu * fit.pipeline_parallel / fit.weights_gib
        yield f"{outside:.0%} of {host.wish.model} does not fit on the GPUs and runs on the CPU, slowly."


def _reasons(
    host: Host, choice: DriverChoice | None, tag: Tag | None, fit: MemoryFit | None
) -> Iterator[Reason]:
    for gpu in host.cards:
        least, source = least_driver(gpu)
        because = f"{gpu.architecture}, compute capability {gpu.capability}; Ollama needs driver {least}"
        yield Reason("gpu", gpu.name, because, source)
    if choice:
        value = str(choice.version) if choice.action == "keep" else f"branch {choice.branch}"
        because = (
            "it is there and suffices" if choice.action == "keep" else "the newest that serves every GPU"
        )
        yield Reason("driver", value, because, driver.MODULES_SOURCE)
    if tag and fit:
        where = f"{fit.pipeline_parallel} GPUs, evenly" if fit.pipeline_parallel > 1 else "one GPU"
        where = where if choice else "the CPU"
        because = f"{tag.size_gb} GB on disk; on {where}: {fit.weights_gib_per_gpu} GiB of "
        because += f"weights and {fit.kv_gib_per_gpu} of KV cache each, {fit.usable_gib} GiB usable"
        yield Reason("memory", f"context {fit.max_model_len}", because, tag.source)
