"""Why every pin of a decision is what it is, in sentences with sources."""

from collections.abc import Iterator

from plan import compat, constraints, packages
from plan.answer import DriverChoice, MemoryFit, Reason
from plan.candidates import CPU, PREFERRED_PYTHONS, Candidate, all_candidates
from plan.compat import version
from plan.constraints import Host
from plan.fit import FORMULA
from plan.gpus import Capability

_RESOLVED = "a real resolution against the package index"


def reasons(
    host: Host, candidate: Candidate, choice: DriverChoice | None, fit: MemoryFit | None
) -> tuple[Reason, ...]:
    """One reason per pin, in the order in which the pins were decided."""
    return tuple(_reasons(host, candidate, choice, fit))


def _reasons(
    host: Host, candidate: Candidate, choice: DriverChoice | None, fit: MemoryFit | None
) -> Iterator[Reason]:
    yield from _gpus(host)
    if choice:
        yield driver_reason(host, choice)
    yield _vllm(host, candidate)
    yield _torch(host, candidate)
    yield _cuda(host, candidate)
    yield _python(host, candidate)
    yield from _closure(candidate)
    yield from _flags(host)
    if fit and host.model:
        yield _memory(host, fit)


def _gpus(host: Host) -> Iterator[Reason]:
    for gpu in host.cards:
        count = host.machine.gpus.count(gpu)
        value = f"{count} x {gpu.name}" if count > 1 else gpu.name
        seen = "CUDA reports" if gpu.memory_verified else "estimated,"
        because = f"{gpu.architecture}, compute capability {gpu.capability}; {seen} {gpu.memory_gib} GiB"
        yield Reason("gpu", value, because, gpu.source)


def driver_reason(host: Host, choice: DriverChoice) -> Reason:
    """Why this driver, and why these kernel modules."""
    if choice.action == "keep":
        native = compat.native_cuda(choice.version or "")
        because = f"it is there and suffices; it brings CUDA {native}"
        if not host.wish.manage_driver:
            because = f"it is there and is not to be changed; it brings CUDA {native}"
        return Reason("driver", str(choice.version), because, compat.branch_of(choice.version or "").source)
    row = next(row for row in compat.branches() if row.branch == choice.branch)
    names = ", ".join(gpu.name for gpu in host.cards)
    because = f"the newest production or long-term branch that serves {names}; it brings CUDA {row.cuda}"
    if host.wish.driver_branches is not None:
        because = f"the newest of the branches in question that serves {names}; it brings CUDA {row.cuda}"
    because += f"; {choice.modules} kernel modules: {_modules(host, choice)}"
    if choice.fabric_manager:
        manager = "fabric manager and NVLink subnet manager" if choice.subnet_manager else "fabric manager"
        because += f"; NVSwitch board: {manager} of exactly the driver's version"
    return Reason("driver", f"branch {choice.branch}", because, row.source)


def _modules(host: Host, choice: DriverChoice) -> str:
    if choice.modules == "proprietary":
        return "older than Turing, which the open ones do not drive"
    if any(gpu.capability >= Capability(10, 0) or gpu.grace for gpu in host.cards):
        return "the only ones that drive this generation"
    return "NVIDIA's default for this generation since 560"


def _vllm(host: Host, candidate: Candidate) -> Reason:
    chosen = candidate.vllm_version
    if host.wish.vllm:
        return Reason("vllm", chosen, "the operator's pin, and it runs here", candidate.vllm.source)
    newer = [row for row in compat.vllms().values() if version(row.version) > version(candidate.vllm.version)]
    if not newer:
        return Reason("vllm", chosen, "the newest release", candidate.vllm.source)
    kind = "release" if host.wish.prefer == "newest" else "release without a known risk"
    because = f"the newest {kind} for this host; {_passed_over(host, newer[-1])}"
    return Reason("vllm", chosen, because, candidate.vllm.source)


def _passed_over(host: Host, row: compat.Vllm) -> str:
    """What stands against the next newer release."""
    accelerator = "cuda" if host.machine.gpus else CPU
    rejected = [other for other in all_candidates(accelerator) if other.vllm.version == row.version]
    if not rejected:
        return f"no {CPU} build of {row.version} is in the tables"
    failed = next(constraints.failures(rejected[0], host), None)
    if failed:
        return f"{row.version}: {failed.fact}"
    risk = next(constraints.risks(rejected[0], host), "its stack carries a risk")
    return f"{row.version}: {risk.rstrip('.')}"


def _torch(host: Host, candidate: Candidate) -> Reason:
    because = f"vLLM {candidate.vllm.version} is built for exactly torch {candidate.torch.version}"
    index = candidate.torch_build.url
    because += f"; from {index}" if index else "; from the ordinary package index"
    return Reason("torch", candidate.torch_version, because, candidate.torch.source)


def _cuda(host: Host, candidate: Candidate) -> Reason:
    tag = candidate.torch_build.tag
    if tag == CPU:
        return Reason("cuda", CPU, "the host has no NVIDIA GPU", "the host")
    row = compat.cuda(candidate.torch_build.cuda)
    native = host.native_cuda
    if version(row.version) <= version(native):
        because = f"no newer than CUDA {native}, which driver {host.driver} brings"
    else:
        because = (
            f"CUDA {row.version} runs on any driver from {row.floor} on (minor-version compatibility); "
            f"{host.driver} brings {native}"
        )
    return Reason("cuda", tag, because, row.source)


def _python(host: Host, candidate: Candidate) -> Reason:
    allowed = ", ".join(sorted(candidate.pythons, key=version))
    if host.wish.python:
        because = f"the operator's pin, one of {allowed}"
    else:
        first = PREFERRED_PYTHONS[0]
        taken = candidate.pythons[0]
        because = f"preferred of {allowed}" if taken == first else f"{first} is not among {allowed}"
    return Reason("python", host.wish.python or candidate.pythons[0], because, candidate.vllm.source)


def _closure(candidate: Candidate) -> Iterator[Reason]:
    because = "the client that also verifies files that are there; it does not depend on vLLM's age"
    yield Reason("modelscope", packages.modelscope(), because, "plan/tools.toml")
    for name in ("transformers", "accelerate"):
        if name in candidate.vllm.pins:
            because = f"what vLLM {candidate.vllm.version} resolved to on {candidate.vllm.resolved_before}"
            because += ", so that later releases cannot break it" if name == "transformers" else ""
            yield Reason(name, candidate.vllm.pins[name], because, _RESOLVED)


def _flags(host: Host) -> Iterator[Reason]:
    old = [gpu.name for gpu in host.cards if gpu.capability < Capability(8, 0)]
    if old and not host.wish.dtype:
        because = f"{', '.join(old)} has no bfloat16 arithmetic"
        yield Reason("dtype", "half", because, "vLLM documentation; bfloat16 needs compute capability 8.0")


def _memory(host: Host, fit: MemoryFit) -> Reason:
    assert host.model is not None
    split = f"tensor parallel {fit.tensor_parallel}"
    if fit.pipeline_parallel > 1:
        split += f" x pipeline parallel {fit.pipeline_parallel}"
    because = (
        f"{split}: {fit.weights_gib_per_gpu} GiB of weights, {fit.reserve_gib} of reserve and "
        f"{fit.kv_gib_per_gpu} of KV cache ({fit.kv_tokens} tokens) in {fit.usable_gib} GiB"
    )
    value = f"context {fit.max_model_len}"
    if not host.model.verified:
        because += "; the weights are computed, not read from the hub"
    return Reason("memory", value, because, f"{FORMULA}; {host.model.source}")
