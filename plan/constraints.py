"""What stands between a host and a stack: failures (it cannot run) and risks (it may not)."""

from collections.abc import Iterator
from dataclasses import dataclass

from plan import compat
from plan.answer import Failure, Machine, Wish
from plan.candidates import CPU, Candidate
from plan.compat import version
from plan.gpus import Capability, Gpu
from plan.models import ModelFacts

# Compute capabilities whose kernels exist partly as PTX only, so that the driver itself compiles them.
_PTX_SOMETIMES = Capability(9, 0)
_PTX_ALWAYS = Capability(10, 0)
_FIRST_MARLIN_PTX = "0.12.0"
_MARLIN = frozenset({"awq", "gptq"})
_FIRST_BFLOAT16 = Capability(8, 0)
_PTX_SOURCE = "fatbin scan of the vLLM wheels; vllm#31700, vllm#28030 (cudaErrorUnsupportedPtxVersion, 222)"
_SASS_SOURCE = "fatbin scan of the wheel"
# Constraints that come from what the operator wrote.
OPERATOR = "the operator's pin"
POLICY = "the policy"
# FlashInfer attention, and with it the fp8 KV cache, left compute capability 7.5 in this release.
_NO_FP8_CACHE_ON_TURING = "0.24.0"


@dataclass(frozen=True)
class Host:
    """A machine as the constraints see it: `driver` is the version that will be there, None without GPUs.

    `brief`: only whether there is a stack is asked, not what stands against it.
    """

    machine: Machine
    wish: Wish
    driver: str | None
    glibc: str | None
    model: ModelFacts | None = None
    brief: bool = False

    @property
    def cards(self) -> tuple[Gpu, ...]:
        """The GPUs, each kind once, in order."""
        return tuple(dict.fromkeys(self.machine.gpus))

    @property
    def native_cuda(self) -> str:
        """The CUDA that the driver brings itself."""
        return compat.native_cuda(self.driver or "")


def runs_on(code: tuple[Capability, ...], capability: Capability) -> bool:
    """Whether machine code for some of `code` runs on a GPU: same major, minor not newer."""
    return any(sass.major == capability.major and sass.minor <= capability.minor for sass in code)


def failures(candidate: Candidate, host: Host) -> Iterator[Failure]:
    """Every reason why this stack cannot run on this host, or is not what was asked for."""
    yield from _pins(candidate, host)
    yield from _installs(candidate, host)
    yield from _python(candidate, host)
    yield from _glibc(candidate, host)
    if candidate.build.variant != CPU:
        yield from _gpus(candidate, host)
        yield from _driver(candidate, host)
    yield from _model(candidate, host)


def risks(candidate: Candidate, host: Host) -> Iterator[str]:
    """Every reason why this stack may not run although nothing known forbids it."""
    if not candidate.build.verified:
        where = candidate.build.url or "the package index"
        yield f"vLLM {candidate.vllm_version} from {where} is not verified: {candidate.build.source}."
    if not candidate.torch_build.verified:
        yield f"torch {candidate.torch_version} is not verified: {candidate.torch_build.source}."
    if host.machine.architecture != "x86_64":
        yield f"The {host.machine.architecture} wheel of vLLM {candidate.vllm_version} was not read."
    if candidate.build.variant != CPU:
        yield from _gpu_risks(candidate, host)
    yield from _glibc_risks(candidate, host)
    yield from _model_risks(candidate, host)


def _pins(candidate: Candidate, host: Host) -> Iterator[Failure]:
    wanted = host.wish.torch
    if wanted and wanted not in {candidate.torch_version, candidate.torch.version, _tagged(candidate)}:
        fact = f"vLLM {candidate.vllm.version} is built for torch {candidate.torch.version}"
        if wanted.split("+")[0] == candidate.torch.version:
            fact = f"this is torch {candidate.torch_version} of CUDA tag {candidate.torch_build.tag}"
        yield Failure(f"torch {wanted}", fact, OPERATOR)


def _tagged(candidate: Candidate) -> str:
    return f"{candidate.torch.version}+{candidate.torch_build.tag}"


def _installs(candidate: Candidate, host: Host) -> Iterator[Failure]:
    if candidate.vllm.blocked:
        yield Failure(
            f"vLLM {candidate.vllm.version} can be installed", candidate.vllm.blocked, candidate.vllm.source
        )
    machine = host.machine.architecture
    if machine not in candidate.build.architectures:
        fact = f"its wheels are for {', '.join(candidate.build.architectures)}"
        yield Failure(f"vLLM {candidate.vllm_version} on {machine}", fact, candidate.build.source)
    elif machine == "aarch64" and candidate.torch_build.cuda and _torch_for_aarch64_is_cpu(candidate):
        fact = f"torch {candidate.torch.version} for aarch64 on the package index is a CPU build"
        yield Failure(f"torch with CUDA on {machine}", fact, candidate.torch.source)


def _torch_for_aarch64_is_cpu(candidate: Candidate) -> bool:
    return version(candidate.torch.version) < version("2.11")


def _python(candidate: Candidate, host: Host) -> Iterator[Failure]:
    wanted = host.wish.python
    if wanted and wanted not in candidate.pythons:
        fact = f"vLLM {candidate.vllm.version} resolves for Python {', '.join(sorted_pythons(candidate))}"
        yield Failure(f"Python {wanted}", fact, OPERATOR)


def sorted_pythons(candidate: Candidate) -> list[str]:
    """The candidate's Pythons, oldest first."""
    return sorted(candidate.pythons, key=version)


def _glibc(candidate: Candidate, host: Host) -> Iterator[Failure]:
    if host.glibc is None:
        return
    if version(host.glibc) < version(candidate.glibc):
        fact = f"the host has glibc {host.glibc}"
        yield Failure(
            f"vLLM {candidate.vllm_version} needs glibc {candidate.glibc}", fact, candidate.vllm.source
        )
        return
    needed = candidate.vllm.glibc_mixture_of_experts
    if needed and host.model and host.model.mixture_of_experts and version(host.glibc) < version(needed):
        fact = f"the host has glibc {host.glibc}"
        constraint = f"vLLM {candidate.vllm_version} needs glibc {needed} for mixture-of-experts models"
        yield Failure(constraint, fact, "ELF version needs of _moe_C; vllm#18967")


def _glibc_risks(candidate: Candidate, host: Host) -> Iterator[str]:
    needed = candidate.vllm.glibc_mixture_of_experts
    if needed and host.glibc and not host.model and version(host.glibc) < version(needed):
        yield (
            f"vLLM {candidate.vllm_version} needs glibc {needed} for mixture-of-experts models "
            f"(the host has {host.glibc}); other models run."
        )


def _gpus(candidate: Candidate, host: Host) -> Iterator[Failure]:
    for gpu in host.cards:
        if host.wish.dtype == "bfloat16" and gpu.capability < _FIRST_BFLOAT16:
            fact = f"{gpu.name} is of compute capability {gpu.capability}, bfloat16 needs {_FIRST_BFLOAT16}"
            yield Failure("dtype bfloat16", fact, OPERATOR)
        for what, code, source in (
            (f"vLLM {candidate.vllm_version}", candidate.build.capabilities, candidate.build.source),
            (f"torch {candidate.torch_version}", candidate.torch_build.capabilities, _SASS_SOURCE),
        ):
            if not runs_on(code, gpu.capability):
                held = ", ".join(str(capability) for capability in code)
                fact = (
                    f"{gpu.name} is of compute capability {gpu.capability}, the wheel holds code for {held}"
                )
                yield Failure(f"{what} has machine code for every GPU", fact, source)
        for rule in compat.gpu_rules():
            if rule.effect == "fails" and rule.covers(candidate.vllm.version, gpu.capability):
                fact = f"{gpu.name}, compute capability {gpu.capability}: {rule.fact}"
                yield Failure(f"vLLM {candidate.vllm_version} runs on every GPU", fact, rule.source)


def _driver(candidate: Candidate, host: Host) -> Iterator[Failure]:
    row = compat.cuda(candidate.newest_cuda)
    if version(host.driver or "0") < version(row.floor):
        fact = f"CUDA {row.version} needs driver {row.floor} or newer, this one is {host.driver}"
        what = f"driver for vLLM {candidate.vllm_version} with torch {candidate.torch_version}"
        yield Failure(what, fact, row.source)
        return
    if host.wish.policy == "native" and version(host.native_cuda) < version(candidate.newest_cuda):
        fact = (
            f"driver {host.driver} brings CUDA {host.native_cuda}, this stack is of {candidate.newest_cuda}"
        )
        yield Failure("policy native: no CUDA newer than the driver's own", fact, POLICY)
    yield from _compiled_by_driver(candidate, host)
    yield from _triton(candidate, host)


def _compiled_by_driver(candidate: Candidate, host: Host) -> Iterator[Failure]:
    """Kernels that are in the wheel as PTX only need a driver that brings the CUDA they were built with."""
    if version(host.native_cuda) >= version(candidate.build.cuda):
        return
    needed = compat.cuda(candidate.build.cuda).native_driver
    for gpu in host.cards:
        always = gpu.capability >= _PTX_ALWAYS
        if always or (gpu.capability >= _PTX_SOMETIMES and _marlin_as_ptx(candidate, host)):
            kernels = "attention and Marlin kernels" if always else "Marlin kernels"
            fact = (
                f"its {kernels} for compute capability {gpu.capability} are PTX of CUDA "
                f"{candidate.build.cuda}, which driver {host.driver} cannot compile; {needed} can"
            )
            yield Failure(f"vLLM {candidate.vllm_version} on {gpu.name}", fact, _PTX_SOURCE)


def _marlin_as_ptx(candidate: Candidate, host: Host) -> bool:
    quantization = host.model.quantization if host.model else None
    return quantization in _MARLIN and version(candidate.vllm.version) >= version(_FIRST_MARLIN_PTX)


def _triton(candidate: Candidate, host: Host) -> Iterator[Failure]:
    """Triton assembles with its own ptxas, whose output does not load on a driver of an older CUDA major."""
    row = compat.triton_row(candidate.torch.triton)
    native = version(host.native_cuda).major
    for gpu in host.cards:
        ptxas = row.ptxas_newest if gpu.capability >= row.newest_from else row.ptxas
        if version(ptxas).major > native:
            fact = (
                f"Triton {candidate.torch.triton} assembles for {gpu.name} with ptxas {ptxas}, "
                f"driver {host.driver} brings CUDA {host.native_cuda}"
            )
            yield Failure("Triton's own assembler within the driver's CUDA major", fact, row.source)


def _gpu_risks(candidate: Candidate, host: Host) -> Iterator[str]:
    behind = version(host.native_cuda) < version(candidate.build.cuda)
    for gpu in host.cards:
        if behind and _PTX_SOMETIMES <= gpu.capability < _PTX_ALWAYS and not _newer_than_any_ptx(candidate):
            yield (
                f"Some kernels of vLLM {candidate.vllm_version} for {gpu.name} are PTX of CUDA "
                f"{candidate.build.cuda}, which driver {host.driver} cannot compile: a model that needs them "
                f"fails at start (vllm#31700)."
            )
        for rule in compat.gpu_rules():
            if rule.effect == "risk" and rule.covers(candidate.vllm.version, gpu.capability):
                yield f"vLLM {candidate.vllm_version} on {gpu.name}: {rule.fact} ({rule.source})."


def _newer_than_any_ptx(candidate: Candidate) -> bool:
    """Releases built with CUDA 12.4 or older hold no PTX for Hopper."""
    return version(candidate.build.cuda) < version("12.8")


def _model(candidate: Candidate, host: Host) -> Iterator[Failure]:
    model = host.model
    yield from _cache(candidate, host)
    if model is None:
        return
    row = compat.architectures().get(model.architecture)
    if row:
        yield from _architecture(candidate, host, model, row)
    yield from _float16(host, model)
    needed = compat.quantization(model.quantization or "", candidate.vllm.version)
    for gpu in host.cards:
        if needed and gpu.capability < needed.capability:
            fact = f"{gpu.name} is of compute capability {gpu.capability}"
            constraint = f"vLLM {candidate.vllm_version} runs {needed.name} from {needed.capability} on"
            yield Failure(constraint, fact, needed.source)


def _float16(host: Host, model: ModelFacts) -> Iterator[Failure]:
    """Models that are not stable in the one half precision that a GPU has."""
    names, source = compat.without_float16()
    if model.architecture not in names or (host.wish.dtype or "half") not in ("half", "float16"):
        return
    for gpu in host.cards:
        if gpu.capability < _FIRST_BFLOAT16 or host.wish.dtype:
            fact = f"{gpu.name} is of compute capability {gpu.capability}, and bfloat16 is from 8.0 on"
            yield Failure(f"{model.architecture} does not run in float16", fact, source)


def _cache(candidate: Candidate, host: Host) -> Iterator[Failure]:
    """An fp8 KV cache on GPUs older than Ampere."""
    if not (host.wish.kv_cache_dtype or "").startswith("fp8"):
        return
    for gpu in host.cards:
        late = version(candidate.vllm.version) >= version(_NO_FP8_CACHE_ON_TURING)
        if gpu.capability < _FIRST_BFLOAT16 and late:
            fact = f"{gpu.name} is of compute capability {gpu.capability}"
            constraint = f"vLLM {candidate.vllm_version} keeps an fp8 KV cache from 8.0 on"
            yield Failure(constraint, fact, "vllm#47549, vllm#45375")


def _architecture(
    candidate: Candidate, host: Host, model: ModelFacts, row: compat.Architecture
) -> Iterator[Failure]:
    release, name = version(candidate.vllm.version), row.family or model.architecture
    if release < version(row.vllm):
        fact = f"{name} came with vLLM {row.vllm}"
        yield Failure(f"vLLM {candidate.vllm_version} knows {model.architecture}", fact, row.source)
    if row.vllm_last and release > version(row.vllm_last):
        fact = f"{name} was last seen in vLLM {row.vllm_last}"
        yield Failure(f"vLLM {candidate.vllm_version} knows {model.architecture}", fact, row.source)
    pinned = candidate.vllm.pins.get("transformers")
    if row.transformers and pinned and version(pinned) < version(row.transformers):
        fact = f"{name} came with transformers {row.transformers}, this stack has {pinned}"
        yield Failure(f"transformers knows {model.architecture}", fact, row.source)
    for gpu in host.cards:
        if not row.turing and gpu.capability < Capability(8, 0):
            fact = f"{gpu.name} is of compute capability {gpu.capability}"
            yield Failure(f"{name} needs compute capability 8.0", fact, row.source)


def _model_risks(candidate: Candidate, host: Host) -> Iterator[str]:
    model = host.model
    if model is None:
        return
    if model.architecture not in compat.architectures():
        yield (
            f"{model.architecture} is in no vLLM registry that was looked at: {model.id} runs through "
            "transformers at best."
        )
    needed = compat.quantization(model.quantization or "", candidate.vllm.version)
    if model.quantization and needed is None:
        yield f"Which GPUs run {model.quantization} in vLLM is not in the tables."
    if needed and needed.weight_only_below:
        for gpu in host.cards:
            if gpu.capability < needed.weight_only_below:
                yield (
                    f"{gpu.name} has no {needed.name} arithmetic: {model.id} saves memory there, "
                    "and computes in 16 bits."
                )
