"""Which GPUs, and how much of the memory, each service of a host gets: planned together, disjoint."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from plan import flags
from plan.answer import Decision, Machine
from plan.errors import PlanError
from plan.sections import Service

# Ollama puts what a GPU cannot hold into the host's memory, so a part of one is of use to it.
LEAST_SHARE_FOR_OLLAMA = 0.1
# What may be given away of one GPU in all: the driver and CUDA's own contexts keep the rest.
MOST_SHARE = 0.98


@dataclass(frozen=True)
class Seat:
    """What one service gets.

    Attributes:
        machine: the host as the service may use it: its GPUs, and the memory that others leave.
        gpus: which of the host's GPUs these are, by their place.
        shared: the share of each of them that other services take.
    """

    machine: Machine
    gpus: tuple[int, ...]
    shared: float = 0.0


@dataclass
class Seats:
    """The host's GPUs and memory, and what of them is given away.

    `uuids`: what the driver calls the machine's GPUs; empty when it is not known.

    Use: for every name of `order`, `offer` a seat, decide on it, then `take` what was decided.
    """

    machine: Machine
    services: Mapping[str, Service]
    uuids: tuple[str, ...] = ()
    taken: dict[int, float] = field(default_factory=dict)
    holders: dict[int, list[str]] = field(default_factory=dict)
    memory_taken_gib: float = 0.0
    given: dict[str, Seat] = field(default_factory=dict)

    @property
    def order(self) -> list[str]:
        """Who says how many, first; then who has to be given whole GPUs; Ollama, which takes what is left."""
        return sorted(self.services, key=lambda name: (*self._rank(self.services[name]), name))

    def _rank(self, service: Service) -> tuple[bool, int, bool]:
        return service.engine == "ollama", -(service.gpus or 0), service.gpu_memory_utilization is not None

    def offer(self, name: str) -> Seat:
        """The part of the host that a service may use.

        Raises:
            PlanError: nothing is left for it.
        """
        service = self.services[name]
        machine = self.machine
        if machine.memory_gib is not None:
            machine = replace(machine, memory_gib=max(0.0, machine.memory_gib - self.memory_taken_gib))
        if not machine.gpus:
            return Seat(machine, ())
        found = tuple(self._found(name, service))
        if len(found) < (service.gpus or 1):
            raise PlanError([self._refusal(name, service, len(found))])
        shared = max(self.taken.get(gpu, 0.0) for gpu in found)
        # vLLM's own share is one of the whole GPU; Ollama takes what others leave of it
        left = 1 - shared if service.engine == "ollama" else 1
        seen = (machine.gpus[gpu] for gpu in found)
        gpus = tuple(replace(gpu, memory_gib=round(gpu.memory_gib * left, 2)) for gpu in seen)
        return Seat(replace(machine, gpus=gpus), found, shared)

    def take(self, name: str, seat: Seat, decision: Decision) -> Seat:
        """Gives a service what was decided for it; the seat with the GPUs that it really takes."""
        service = self.services[name]
        count = service.gpus or len(seat.gpus)
        if service.engine == "vllm":
            fit = decision.memory
            count = service.gpus or (fit.tensor_parallel * fit.pipeline_parallel if fit else 1)
        chosen = seat.gpus[:count]
        for gpu in chosen:
            share = service.gpu_memory_utilization or 1.0
            self.taken[gpu] = self.taken.get(gpu, 0.0) + share
            self.holders.setdefault(gpu, []).append(name)
        if not self.machine.gpus:
            self.memory_taken_gib += host_gib(decision)
        taken = replace(seat, gpus=chosen)
        self.given[name] = taken
        return taken

    def variables(self, name: str) -> dict[str, str]:
        """What tells a service's processes which GPUs are theirs, and how much of them is not."""
        seat = self.given[name]
        if not seat.gpus:
            return {}
        variables = {}
        if self.uuids:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self.uuids[gpu] for gpu in seat.gpus)
        if self.services[name].engine == "ollama" and seat.shared:
            total = min(self.machine.gpus[gpu].memory_gib for gpu in seat.gpus)
            variables["OLLAMA_GPU_OVERHEAD"] = str(int(seat.shared * total * 2**30))
        return variables

    def _found(self, name: str, service: Service) -> Iterator[int]:
        """Places of the GPUs that a service may use."""
        every = range(len(self.machine.gpus))
        share = service.gpu_memory_utilization
        if share is not None:
            # shares are decimal fractions, which sums of floats miss by a hair
            yield from (gpu for gpu in every if round(self.taken.get(gpu, 0.0) + share, 6) <= MOST_SHARE)
            return
        whole = [gpu for gpu in every if gpu not in self.taken]
        if service.engine == "ollama":
            others = sum(1 for other in self._waiting(name))
            part = whole[: service.gpus or max(1, len(whole) // (others + 1))]
            yield from part or self._corner(every)
            return
        kept = sum(self._least(other) for other in self._waiting(name))
        yield from whole[: max(service.gpus or 1, len(whole) - kept)]

    def _corner(self, every: Sequence[int]) -> list[int]:
        """The one GPU of which the most is left, when that is worth while."""
        best = min(every, key=lambda gpu: self.taken[gpu])
        return [best] if round(1 - self.taken[best], 6) >= LEAST_SHARE_FOR_OLLAMA else []

    def _waiting(self, name: str) -> Iterator[Service]:
        """The services that come after this one."""
        after = self.order[self.order.index(name) + 1 :]
        return (self.services[other] for other in after)

    def _least(self, service: Service) -> int:
        """How many whole GPUs to keep for a service that comes later."""
        if service.gpu_memory_utilization is not None and service.engine == "vllm":
            return 0 if any(self.services[name].gpu_memory_utilization for name in self.given) else 1
        return service.gpus or 1

    def _refusal(self, name: str, service: Service, found: int) -> str:
        count = len(self.machine.gpus)
        held = "; ".join(
            f"GPU {gpu} is {' and '.join(f'serve.{holder}' for holder in holders)}'s"
            for gpu, holders in sorted(self.holders.items())
        )
        wanted = service.gpus or 1
        left = f"{found} of {count} GPUs {'is' if found == 1 else 'are'} left for it"
        fix = (
            "Give it fewer, or use another host."
            if not held
            else "Set `gpus` of the others lower, or let services share a GPU by setting "
            f"`gpu_memory_utilization` of each so that the sum is at most {MOST_SHARE}."
        )
        return f"serve.{name}.gpus: wants {wanted}, {left}{f' ({held})' if held else ''}. {fix}"


def host_gib(decision: Decision) -> float:
    """What a server without a GPU takes of the host's memory."""
    if decision.engine != "vllm":
        return decision.memory.weights_gib if decision.memory else 0.0
    weights_gib = decision.memory.weights_gib if decision.memory else 0.0
    server_gib = decision.memory.reserve_gib if decision.memory else flags.CPU_SERVER_GIB
    return weights_gib + float(decision.flags.get("kv_cache_memory_bytes", 0)) / 2**30 + server_gib
