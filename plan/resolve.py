"""From what a host is and what the operator wants: the one stack that works, or what stands in its way."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from plan import compat, constraints, driver, flags, models, ollama, processor
from plan.answer import Decision, DriverChoice, Failure, Machine, MemoryFit, Reason, Refusal, Wish
from plan.candidates import CPU, Candidate, all_candidates
from plan.compat import version
from plan.constraints import Host
from plan.fit import FitWish, as_loaded, decide_fit, disk_gib
from plan.fixes import fixes_for
from plan.models import ModelFacts
from plan.reasons import reasons

__all__ = ["Decision", "Failure", "Machine", "Reason", "Refusal", "Wish", "decide"]


@dataclass(frozen=True)
class Stack:
    """A candidate that runs on a host, with what may go wrong."""

    candidate: Candidate
    risks: tuple[str, ...]


def decide(machine: Machine, wish: Wish, model: ModelFacts | None = None) -> Decision | Refusal:
    """The stack for this host, or a refusal with the smallest changes after which there is one.

    Args:
        machine: what the host is.
        wish: what the operator wants.
        model: the model's facts when it is not in the tables (read from its hub or directory).
    """
    # A fleet is many hosts of few kinds: what a decision does not depend on must not tell them apart.
    kind = replace(machine, disk_free_gib=None, cpu_cores=None)
    if machine.gpus and wish.engine == "vllm":
        kind = replace(kind, memory_gib=None)
    return _decide_kind(kind, wish, model)


@lru_cache(maxsize=1024)
def _decide_kind(machine: Machine, wish: Wish, model: ModelFacts | None) -> Decision | Refusal:
    answer = decide_once(machine, wish, model)
    if isinstance(answer, Decision):
        return answer
    return replace(answer, fixes=fixes_for(machine, wish, model, _works))


def _works(machine: Machine, wish: Wish, model: ModelFacts | None) -> Decision | Refusal:
    return decide_once(machine, wish, model, brief=True)


def decide_once(
    machine: Machine, wish: Wish, model: ModelFacts | None = None, *, brief: bool = False
) -> Decision | Refusal:
    """As `decide`, without looking for fixes; a `brief` refusal does not say what fails."""
    failed = tuple(_gates(machine, wish))
    if failed:
        return Refusal(failed)
    facts = model or (models.lookup(wish.model) if wish.model else None)
    host = Host(machine, wish, None, host_glibc(machine), facts, brief)
    if wish.engine == "ollama":
        return ollama.decide(host)
    if not machine.gpus:
        return _on_cpu(host)
    choices = driver_choices(machine, wish)
    if isinstance(choices, Refusal):
        return choices
    return _best_answer([_with_driver(host, choice) for choice in choices], wish)


def _gates(machine: Machine, wish: Wish) -> Iterable[Failure]:
    """What a decision needs to know, and what no stack can change."""
    if machine.os and not machine.glibc and compat.system(machine.os) is None:
        yield Failure(
            "operating system known", f"{machine.os} is not in the tables", "plan/compat-systems.toml"
        )
    if wish.vllm and wish.vllm.split("+")[0] not in compat.vllms():
        near = _nearest_releases(wish.vllm)
        yield Failure(f"vLLM {wish.vllm} known", f"the tables have {near} near it", "plan/compat-vllm.toml")
    if wish.torch and wish.torch.split("+")[0] not in compat.torches():
        yield Failure(f"torch {wish.torch} known", "it is not in the tables", "plan/compat-torch.toml")
    if any(gpu.mig for gpu in machine.gpus):
        yield Failure(
            "whole GPUs", "MIG cuts a GPU of this host into instances", "nvidia-smi: mig_mode enabled"
        )


def _nearest_releases(wanted: str) -> str:
    releases = sorted(compat.vllms(), key=version)
    older = [release for release in releases if version(release) < version(wanted.split("+")[0])]
    newer = releases[len(older) :]
    return " and ".join([*older[-1:], *newer[:1]])


def host_glibc(machine: Machine) -> str | None:
    """The host's C library: as given, or its operating system's; None when neither is known."""
    system = compat.system(machine.os) if machine.os else None
    return machine.glibc or (system.glibc if system else None)


def driver_choices(machine: Machine, wish: Wish) -> list[DriverChoice] | Refusal:
    """The drivers to consider, the one that is there first."""
    choices: list[DriverChoice] = []
    failed: tuple[Failure, ...] = ()
    if machine.driver:
        failed = driver.failures_of_kept(machine, machine.driver)
        away = driver.pinned_away(machine, machine.driver, wish) if wish.manage_driver else None
        failed = (*failed, away) if away else failed
        if not failed:
            choices.append(driver.kept(machine, machine.driver))
        if not wish.manage_driver:
            return choices or Refusal(failed)
    elif not wish.manage_driver:
        fact = "the host has none, and may not be given one"
        return Refusal((Failure("an NVIDIA driver", fact, "the host and the settings"),))
    planned = driver.planned(machine, wish.driver_branches, wish.driver_modules, wish.driver_version)
    if isinstance(planned, DriverChoice):
        choices.append(planned)
    elif not choices:
        return Refusal((*failed, *planned))
    return choices


def _best_answer(answers: list[Decision | Refusal], wish: Wish) -> Decision | Refusal:
    """The first that works: a driver is changed only when that gains something.

    With `prefer = "newest"` a newer vLLM is such a gain.
    """
    decisions = [answer for answer in answers if isinstance(answer, Decision)]
    if not decisions:
        return answers[0]
    if wish.prefer == "newest":
        return max(decisions, key=lambda answer: (_release(answer), answer is decisions[0]))
    return decisions[0]


def _release(answer: Decision) -> tuple[int, ...]:
    return version(answer.vllm or "0").release


def _with_driver(host: Host, choice: DriverChoice) -> Decision | Refusal:
    host = replace(host, driver=effective_version(choice))
    stack = choose(host, "cuda")
    if isinstance(stack, Refusal):
        return stack
    fit = _fit(host, stack.candidate)
    if isinstance(fit, Refusal):
        return fit
    return _decision(host, stack, choice, fit)


def effective_version(choice: DriverChoice) -> str:
    """The version that will be there; of a branch to be installed, its first release."""
    if choice.version:
        return choice.version
    row = next(row for row in compat.branches() if row.branch == choice.branch)
    return compat.cuda(row.cuda).native_driver


def choose(host: Host, accelerator: str) -> Stack | Refusal:
    """The best stack for this host: the newest without a risk, else the newest with the fewest.

    With `prefer = "newest"` the newest vLLM counts first.
    """
    found: list[Stack] = []
    candidates = _in_question(host, accelerator)
    for candidate in candidates:
        if found and _settles(found, candidate, host.wish):
            break
        if next(constraints.failures(candidate, host), None) is None:
            found.append(Stack(candidate, tuple(dict.fromkeys(constraints.risks(candidate, host)))))
    if found:
        return min(found, key=lambda stack: len(stack.risks))
    if host.brief:
        return Refusal(())
    return Refusal(_nearest(candidates, host) or (_no_build(host, accelerator),))


def _nearest(candidates: list[Candidate], host: Host) -> tuple[Failure, ...]:
    """What fails of the nearest candidate; of two that fail alike, of the older, which asks for less."""
    failed = [tuple(constraints.failures(candidate, host)) for candidate in candidates]
    return min(reversed(failed), key=_distance, default=())


def _no_build(host: Host, accelerator: str) -> Failure:
    wanted = f"vLLM {host.wish.vllm or ''} for {accelerator}"
    known = ", ".join(dict.fromkeys(one.vllm_version for one in all_candidates(accelerator)))
    return Failure(wanted, f"the tables have {known}", "plan/compat-vllm.toml")


def _in_question(host: Host, accelerator: str) -> list[Candidate]:
    """Candidates of the pinned vLLM and of the host's processor, so that a refusal speaks of those."""
    wanted, processor_name = host.wish.vllm, host.machine.architecture
    pinned = [
        one
        for one in all_candidates(accelerator)
        if not wanted or wanted in (one.vllm.version, one.vllm_version)
    ]
    return [one for one in pinned if processor_name in one.build.architectures] or pinned


def _settles(found: list[Stack], candidate: Candidate, wish: Wish) -> bool:
    """Whether nothing that comes after can be better than what was found."""
    if not found[-1].risks:
        return True
    return wish.prefer == "newest" and candidate.vllm.version != found[0].candidate.vllm.version


# What it costs the operator to give way.
_COST = {constraints.OPERATOR: 1, constraints.POLICY: 2}


def _distance(failed: Iterable[Failure]) -> int:
    return sum(_COST.get(failure.source, 3) for failure in failed)


def _fit(host: Host, candidate: Candidate) -> MemoryFit | Refusal | None:
    if host.model is None:
        return None
    wish, model = host.wish, as_loaded(host.model, host.wish.dtype)
    cache = wish.kv_cache_dtype
    if model is not host.model and cache in (None, "auto"):
        # it follows the weights
        cache = "float32"
    wanted = FitWish(
        vllm=candidate.vllm.version,
        gpus=wish.gpus,
        tensor_parallel=wish.tensor_parallel,
        max_model_len=wish.max_model_len,
        utilization=wish.gpu_memory_utilization,
        kv_cache_dtype=cache,
        enforce_eager=wish.enforce_eager,
        lora_slots=wish.lora_slots,
        lora_rank=wish.lora_rank,
        cache_bytes=wish.kv_cache_memory_bytes,
    )
    fit = decide_fit(model, host.machine.gpus, wanted)
    return replace(fit, disk_gib=disk_gib(host.model)) if isinstance(fit, MemoryFit) else Refusal(fit)


def _decision(host: Host, stack: Stack, choice: DriverChoice, fit: MemoryFit | None) -> Decision:
    return Decision(
        accelerator="cuda",
        engine="vllm",
        driver=choice,
        flags=flags.for_gpus(host, fit),
        environment=flags.environment(stack.candidate),
        memory=fit,
        warnings=(*stack.risks, *_notices(host, choice)),
        why=reasons(host, stack.candidate, choice, fit),
        **processor.pins(host, stack.candidate),
    )


def _notices(host: Host, choice: DriverChoice) -> Iterable[str]:
    """What the operator should know of the host and the model, whatever stack is chosen."""
    yield from (gpu.note for gpu in host.cards if gpu.note)
    if choice.action == "keep":
        yield from driver.warnings_of_kept(host.machine, choice.version or "")
    elif choice.repository is None and host.machine.os:
        yield f"NVIDIA keeps no driver repository for {host.machine.os}: the driver comes from its runfile."
    yield from processor.notices(host)
    if host.model and any(not gpu.memory_verified for gpu in host.cards):
        names = ", ".join(gpu.name for gpu in host.cards if not gpu.memory_verified)
        yield f"What CUDA sees of the memory of {names} is estimated."


def _on_cpu(host: Host) -> Decision | Refusal:
    stack = choose(host, CPU)
    if isinstance(stack, Refusal):
        return stack
    return processor.decide(host, stack.candidate, stack.risks)
