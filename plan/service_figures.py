"""What a service takes, as planned and as its server tells of itself."""

import re
from collections.abc import Iterator

from plan.answer import MemoryFit
from plan.host import HostPlan, ServicePlan
from plan.report import Figure

ON_GPUS, ON_HOST = "memory of its GPUs", "memory of the service"
FIRST_TOKEN, SPEED = "time to the first token", "tokens per second"
# vLLM's own words at its start, and those of the readiness check.
_KV_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_WEIGHTS = re.compile(r"[Mm]odel loading took ([\d.]+) GiB")
_ANSWER = re.compile(r"answers: first token after ([\d.]+) ms, then ([\d.]+) tokens per second")
# Finds these lines in a journal.
PATTERN = "Model loading took|KV cache size|answers: first token"


def predicted(plan: HostPlan) -> Iterator[Figure]:
    """The memory that each service was planned with: of its GPUs, else of its host."""
    what = ON_GPUS if plan.accelerator == "cuda" else ON_HOST
    for service in plan.services:
        if service.memory:
            yield Figure(service.name, what, "GiB", whole_gib(service.memory))


def told(service: ServicePlan, journal: str) -> Iterator[Figure]:
    """What the lines of a service's journal tell, beside what was planned."""
    fit = service.memory
    if found := _KV_TOKENS.search(journal):
        planned = float(fit.kv_tokens) if fit else None
        yield Figure(service.name, "KV cache", "tokens", planned, float(found[1].replace(",", "")))
    if found := _WEIGHTS.search(journal):
        planned = fit.weights_gib_per_gpu if fit else None
        yield Figure(service.name, "memory of the weights", "GiB", planned, float(found[1]))
    if found := _ANSWER.search(journal):
        yield Figure(service.name, FIRST_TOKEN, "ms", None, float(found[1]))
        yield Figure(service.name, SPEED, "tok/s", None, float(found[2]))


def whole_gib(fit: MemoryFit) -> float:
    """All that a service takes, over all of its GPUs."""
    each = fit.weights_gib_per_gpu + fit.kv_gib_per_gpu + fit.reserve_gib
    return each * fit.tensor_parallel * fit.pipeline_parallel
