"""What a service takes, as planned and as measured."""

import re
from collections.abc import Iterator

from plan.answer import MemoryFit
from plan.host import ServicePlan
from plan.report import Figure
from tests.verify.evidence import Evidence

# vLLM's own words at its start.
_KV_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_WEIGHTS = re.compile(r"[Mm]odel loading took ([\d.]+) GiB")


def of(service: ServicePlan, evidence: Evidence) -> Iterator[Figure]:
    """The figures of a service that could be measured. Memory: of its GPUs, else of its processes."""
    fit = service.memory
    said = "\n".join(evidence.lines("memory", service.unit))
    if found := _KV_TOKENS.search(said):
        planned = float(fit.kv_tokens) if fit else None
        yield Figure(service.name, "KV cache", "tokens", planned, float(found[1].replace(",", "")))
    if found := _WEIGHTS.search(said):
        planned = fit.weights_gib_per_gpu if fit else None
        yield Figure(service.name, "memory of the weights", "GiB", planned, float(found[1]))
    pids = {process.pid for process in evidence.processes(service.unit)}
    on_gpus = [mib for pid, mib in _pairs(evidence.lines("gpu_memory"), ",") if pid in pids]
    resident = [kib for _, kib in _pairs(evidence.lines("resident", service.unit), " ")]
    if on_gpus:
        yield Figure(service.name, "memory of its GPUs", "GiB", _whole(fit), sum(on_gpus) / 2**10)
    elif resident:
        yield Figure(service.name, "memory of the service", "GiB", _whole(fit), sum(resident) / 2**20)


def _whole(fit: MemoryFit | None) -> float | None:
    if fit is None:
        return None
    each = fit.weights_gib_per_gpu + fit.kv_gib_per_gpu + fit.reserve_gib
    return each * fit.tensor_parallel * fit.pipeline_parallel


def _pairs(lines: list[str], separator: str) -> Iterator[tuple[int, int]]:
    """Process and number, of lines that have both; nvidia-smi writes [N/A] for what it does not know."""
    for line in lines:
        pid, _, number = (part.strip() for part in line.partition(separator))
        if pid.isdigit() and number.isdigit():
            yield int(pid), int(number)
