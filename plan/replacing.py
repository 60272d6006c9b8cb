"""How a changed service takes the place of the one that serves: beside it, or after it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from plan import gateway, smi
from plan.answer import Decision
from plan.probe import Probe
from plan.seats import MOST_SHARE, Seats, host_gib

# Where a second server of a service listens, on loopback, until the first has taken over what it does.
FIRST_PORT = 19000
# What of the host's memory two servers leave alone, and what a second one takes of it beside its GPUs.
KEPT_GIB, BESIDE_GPU_GIB = 1.0, 8.0
# A GPU that nobody computes on says that some memory is used.
IDLE_MIB = 1024


@dataclass(frozen=True)
class Replacing:
    """Which way a changed service goes.

    Attributes:
        port: on which the new one answers before the old one is taken away; None: the old one is stopped
            first.
        because: why it is stopped first, for the operator's eyes.
        variables: what keeps the second server to GPUs that nobody has.
    """

    port: int | None
    because: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


def decide(
    name: str, seats: Seats, decision: Decision, probe: Probe, fronted: bool, port: int
) -> Replacing | None:
    """The way of one service; None when nothing serves that could be kept.

    Args:
        name: of the service; its seat has been taken, and those of all others.
        seats: what the services of the host take.
        decision: of the service.
        probe: what the host is; memory that is in use now is not given to a second server.
        fronted: whether a front stands before the service.
        port: a free one for the second server.
    """
    unit_name = f"{seats.services[name].engine}-{name}.service"
    unit = probe.units.get(unit_name)
    if unit is None or unit.active != "active":
        return None
    front = probe.units.get(gateway.UNIT)
    if not fronted:
        return Replacing(None, "no front holds its port")
    if name not in probe.gateway.switches or front is None or front.active != "active":
        return Replacing(None, "its front cannot be turned yet")
    # what a run that was cut has begun takes the memory that it was given
    begun = second_unit(unit_name) in probe.units
    if not seats.machine.gpus:
        needed_gib = _host_gib(name, seats, decision) + KEPT_GIB
        left_gib = (seats.machine.memory_gib or 0.0) - seats.memory_taken_gib
        roomy = left_gib >= needed_gib and (begun or probe.memory_available_gib >= needed_gib)
        return Replacing(port) if roomy else Replacing(None, "the host's memory has no room for two")
    free = list(_free_gpus(name, seats, probe, begun))[: len(seats.given[name].gpus)]
    if not seats.uuids or len(free) < len(seats.given[name].gpus):
        return Replacing(None, "no GPU has room for a second one")
    if not begun and probe.memory_available_gib < BESIDE_GPU_GIB:
        return Replacing(None, "the host's memory has no room for two")
    return Replacing(port, "", {"CUDA_VISIBLE_DEVICES": ",".join(seats.uuids[gpu] for gpu in free)})


def second_unit(unit: str) -> str:
    """The unit of the second server; it lies in /run, so it is gone with the boot."""
    return f"bringup-second-{unit}"


def _host_gib(name: str, seats: Seats, decision: Decision) -> float:
    """What the second server takes of the host's memory; the operator's own cache counts, if it is given."""
    cache = seats.services[name].own_flags.get("kv-cache-memory-bytes")
    needed_gib = host_gib(decision)
    if isinstance(cache, int) and decision.engine == "vllm":
        needed_gib += (cache - float(decision.flags.get("kv_cache_memory_bytes", 0))) / 2**30
    return needed_gib


def _free_gpus(name: str, seats: Seats, probe: Probe, begun: bool) -> Iterator[int]:
    """Places of the GPUs that no plan has given away, and that are not in use either."""
    share = seats.services[name].gpu_memory_utilization
    memory = smi.memory_use_mib(probe.smi)
    for gpu in range(min(len(seats.machine.gpus), len(memory))):
        used, total = (0, memory[gpu][1]) if begun else memory[gpu]
        taken = seats.taken.get(gpu, 0.0)
        if share is None and not taken and used <= IDLE_MIB:
            yield gpu
        if share is not None and taken + share <= MOST_SHARE and total - used >= share * total:
            yield gpu
