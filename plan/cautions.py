"""What an operator should know of a plan that can be carried out."""

from collections.abc import Iterable, Iterator, Sequence

from plan import burn_in, figures, gpu_health, nvidia_mend
from plan.answer import Decision
from plan.burn_in import BurnInPlan
from plan.gpus import Gpu
from plan.host import environment_directory
from plan.probe import Probe
from plan.sections import Settings


def warnings(
    settings: Settings,
    decisions: Iterable[Decision],
    probe: Probe,
    tested: BurnInPlan | None,
    cards: tuple[Gpu, ...],
) -> tuple[str, ...]:
    """Sentences on the decisions, the GPUs' health and figures, and what is on the host besides."""
    found = (
        *_of_host(settings, tuple(decisions), probe),
        *burn_in.warnings(settings.burn_in, tested, cards, probe),
    )
    return tuple(dict.fromkeys(found))


def _of_host(settings: Settings, decisions: Sequence[Decision], probe: Probe) -> Iterator[str]:
    own_wheels = bool(settings.sources.wheels_links) and not settings.sources.vllm
    for decision in decisions:
        for warning in decision.warnings:
            # a caveat about an index that the settings do not use says nothing about this host
            if not (own_wheels and decision.vllm_index and decision.vllm_index in warning):
                yield warning
    yield from gpu_health.warnings(probe)
    yield from nvidia_mend.warnings(settings, probe)
    yield from _of_rack(settings, decisions)
    yield from figures.warnings(probe.checks, environment_directory(settings.environment.name))
    # one that has changed its engine is removed
    planned = {f"{engine}-{name}.service" for engine in ("vllm", "ollama") for name in settings.serve}
    for unit in sorted(probe.units):
        if unit.startswith(("vllm-", "ollama-")) and unit not in planned:
            name = unit.split("-", 1)[1].removesuffix(".service")
            yield (
                f"{unit} is on the host and not in the settings: it is left alone. "
                f"Set serve.{name} with `state: absent` to remove it."
            )


def _of_rack(settings: Settings, decisions: Sequence[Decision]) -> Iterator[str]:
    """GPUs that could reach those of other hosts, and do not."""
    racked = any(decision.driver and decision.driver.memory_exchange for decision in decisions)
    if racked and settings.driver.managed and not settings.driver.imex_nodes:
        yield (
            "nvidia-imex is not started, and these GPUs reach those of other hosts of their rack only by it. "
            "Set driver.imex_nodes where a model spans hosts."
        )
