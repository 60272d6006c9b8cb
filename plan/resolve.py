"""From what a host is and what the operator wants: the one stack that works, or what stands in its way."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from plan import compat, constraints, driver, flags, models
from plan.answer import (
    Decision,
    DriverChoice,
    Failure,
    Machine,
    MemoryFit,
    Policy,
    Preference,
    Reason,
    Refusal,
    Wish,
)
from plan.candidates import CPU, Candidate, all_candidates
from plan.compat import version
from plan.constraints import Host
from plan.fit import FitWish, decide_fit
from plan.models import ModelFacts

__all__ = ["Decision", "Machine", "Policy", "Preference", "Reason", "Refusal", "Wish", "decide"]


@dataclass(frozen=True)
class _Stack:
    """A candidate that runs, with what may go wrong."""

    candidate: Candidate
    risks: tuple[str, ...]


def decide(machine: Machine, wish: Wish, model: ModelFacts | None = None) -> Decision | Refusal:
    """The stack for this host, or a refusal with the smallest changes after which there is one.

    Args:
        machine: what the host is.
        wish: what the operator wants.
        model: the model's facts when it is not in the tables (read from its hub or directory).
    """
    answer = _decide(machine, wish, model)
    if isinstance(answer, Refusal):
        from plan.fixes import fixes_for

        return replace(answer, fixes=fixes_for(machine, wish, model, lambda m, w: _decide(m, w, model)))
    return answer


def _decide(machine: Machine, wish: Wish, model: ModelFacts | None) -> Decision | Refusal:
    facts = model or (models.lookup(wish.model) if wish.model else None)
    glibc, unknown_system = host_glibc(machine)
    if unknown_system:
        return Refusal((unknown_system,))
    if not machine.gpus:
        return _on_cpu(Host(machine, wish, None, glibc, facts))
    choices = _driver_choices(machine, wish)
    if isinstance(choices, Refusal):
        return choices
    answers = [_with_driver(machine, wish, facts, glibc, choice) for choice in choices]
    return _first_good(answers, wish)


def host_glibc(machine: Machine) -> tuple[str | None, Failure | None]:
    """The host's C library: as given, or its operating system's; a failure when the system is not known."""
    if machine.glibc or not machine.os:
        return machine.glibc, None
    system = compat.systems().get(machine.os)
    if system is None:
        return None, Failure(
            "operating system known", f"{machine.os} is not in the tables", "plan/compat-systems.toml"
        )
    return system.glibc, None


def _driver_choices(machine: Machine, wish: Wish) -> list[DriverChoice] | Refusal:
    """The drivers to consider, the one that is there first."""
    choices: list[DriverChoice] = []
    failed: tuple[Failure, ...] = ()
    if machine.driver:
        failed = driver.failures_of_kept(machine, machine.driver)
        if not failed:
            choices.append(driver.kept(machine, machine.driver))
        if not wish.manage_driver:
            return choices or Refusal(failed)
    elif not wish.manage_driver:
        return Refusal(
            (Failure("an NVIDIA driver", "the host has none and may not be given one", "the settings"),)
        )
    planned = driver.planned(machine)
    if isinstance(planned, DriverChoice):
        choices.append(planned)
    elif not choices:
        return Refusal((*failed, *planned))
    return choices


def _first_good(answers: list[Decision | Refusal], wish: Wish) -> Decision | Refusal:
    """The first answer that needs no better driver: a driver is changed only when that gains something."""
    decisions = [answer for answer in answers if isinstance(answer, Decision)]
    if not decisions:
        return answers[-1] if len(answers) > 1 else answers[0]
    if wish.prefer == "newest" and wish.manage_driver:
        return max(
            decisions, key=lambda answer: (version(answer.vllm or "0").release, answer is decisions[0])
        )
    return decisions[0]


def _with_driver(
    machine: Machine, wish: Wish, facts: ModelFacts | None, glibc: str | None, choice: DriverChoice
) -> Decision | Refusal:
    host = Host(machine, wish, effective_version(choice), glibc, facts)
    chosen = choose(host, "cuda")
    if isinstance(chosen, Refusal):
        return chosen
    fit = _fit(host)
    if isinstance(fit, Refusal):
        return fit
    return _decision(host, chosen, choice, fit)


def effective_version(choice: DriverChoice) -> str:
    """The version that will be there; of a branch to be installed, its first release."""
    if choice.version:
        return choice.version
    row = next(row for row in compat.branches() if row.branch == choice.branch)
    return compat.cuda(row.cuda).native_driver


def choose(host: Host, accelerator: str) -> _Stack | Refusal:
    """The best stack for this host: by preference, then as the candidates are ordered."""
    nearest: tuple[Failure, ...] | None = None
    found: list[_Stack] = []
    for candidate in all_candidates(accelerator):
        failed = tuple(constraints.failures(candidate, host))
        if failed:
            if nearest is None or _distance(failed) < _distance(nearest):
                nearest = failed
            continue
        stack = _Stack(candidate, tuple(dict.fromkeys(constraints.risks(candidate, host))))
        if not stack.risks and host.wish.prefer == "safe":
            return stack
        found.append(stack)
    if not found:
        return Refusal(nearest or ())
    if host.wish.prefer == "safe":
        return min(found, key=lambda stack: len(stack.risks))
    newest = [stack for stack in found if stack.candidate.vllm.version == found[0].candidate.vllm.version]
    return min(newest, key=lambda stack: len(stack.risks))


# What it costs the operator to give way: a candidate that fails only cheaply is the nearest.
_COST = {"vLLM": 1, "Python": 1, "torch": 1, "policy": 2}


def _distance(failed: Iterable[Failure]) -> int:
    return sum(_COST.get(failure.constraint.split(" ")[0], 3) for failure in failed)


def _fit(host: Host) -> MemoryFit | Refusal | None:
    wish = host.wish
    if host.model is None:
        return None
    wanted = FitWish(
        gpus=wish.gpus,
        tensor_parallel=wish.tensor_parallel,
        max_model_len=wish.max_model_len,
        utilization=wish.gpu_memory_utilization,
        kv_cache_dtype=wish.kv_cache_dtype,
        enforce_eager=wish.enforce_eager,
    )
    fit = decide_fit(host.model, host.machine.gpus, wanted)
    return fit if isinstance(fit, MemoryFit) else Refusal(fit)


def _python(candidate: Candidate, wish: Wish) -> str:
    return wish.python or candidate.pythons[0]


def _decision(host: Host, stack: _Stack, choice: DriverChoice, fit: MemoryFit | None) -> Decision:
    candidate, wish, machine = stack.candidate, host.wish, host.machine
    notices = [gpu.note for gpu in host.cards if gpu.note]
    if choice.action == "keep":
        notices += driver.warnings_of_kept(machine, choice.version or "")
    return Decision(
        accelerator="cuda",
        engine="vllm",
        driver=choice,
        cuda_tag=candidate.torch_build.tag,
        torch=candidate.torch_version,
        torch_index=candidate.torch_build.url,
        vllm=candidate.vllm_version,
        vllm_index=candidate.build.url,
        python=_python(candidate, wish),
        transformers=candidate.vllm.pins.get("transformers"),
        accelerate=candidate.vllm.pins.get("accelerate"),
        modelscope=candidate.vllm.pins.get("modelscope"),
        pins=candidate.vllm.pins,
        resolved_before=candidate.vllm.resolved_before or None,
        flags=flags.for_gpus(host, fit),
        environment=flags.environment(candidate),
        memory=fit,
        warnings=(*stack.risks, *notices),
        why=(),
    )


def _on_cpu(host: Host) -> Decision | Refusal:
    chosen = choose(host, CPU)
    if isinstance(chosen, Refusal):
        return chosen
    candidate = chosen.candidate
    return Decision(
        accelerator="cpu",
        engine="vllm",
        driver=None,
        cuda_tag=CPU,
        torch=candidate.torch_version,
        torch_index=candidate.torch_build.url,
        vllm=candidate.vllm_version,
        vllm_index=candidate.build.url,
        python=_python(candidate, host.wish),
        transformers=candidate.vllm.pins.get("transformers"),
        accelerate=candidate.vllm.pins.get("accelerate"),
        modelscope=candidate.vllm.pins.get("modelscope"),
        pins=candidate.vllm.pins,
        resolved_before=candidate.vllm.resolved_before or None,
        flags=flags.for_cpu(host),
        environment={},
        memory=None,
        warnings=chosen.risks,
        why=(),
    )
