"""What a service takes, as planned and as measured."""

from collections.abc import Iterator

from plan import service_figures
from plan.host import ServicePlan
from plan.report import Figure
from tests.verify.evidence import Evidence


def of(service: ServicePlan, evidence: Evidence) -> Iterator[Figure]:
    """The figures of a service that could be measured. Memory: of its GPUs, else of its processes."""
    yield from service_figures.told(service, "\n".join(evidence.lines("memory", service.unit)))
    pids = {process.pid for process in evidence.processes(service.unit)}
    on_gpus = [mib for pid, mib in _pairs(evidence.lines("gpu_memory"), ",") if pid in pids]
    resident = [kib for _, kib in _pairs(evidence.lines("resident", service.unit), " ")]
    planned = service_figures.whole_gib(service.memory) if service.memory else None
    if on_gpus:
        yield Figure(service.name, service_figures.ON_GPUS, "GiB", planned, sum(on_gpus) / 2**10)
    elif resident:
        yield Figure(service.name, service_figures.ON_HOST, "GiB", planned, sum(resident) / 2**20)


def _pairs(lines: list[str], separator: str) -> Iterator[tuple[int, int]]:
    """Process and number, of lines that have both; nvidia-smi writes [N/A] for what it does not know."""
    for line in lines:
        pid, _, number = (part.strip() for part in line.partition(separator))
        if pid.isdigit() and number.isdigit():
            yield int(pid), int(number)
