"""How confined the units of a host are: systemd's own figure, and the most that each kind may have."""

from collections.abc import Iterator
from dataclasses import dataclass

from plan import gateway
from plan.host import HostPlan

# `systemd-analyze security` from 0 (closed) to 10 (open). vLLM compiles its kernels while it runs, so it may
# make memory executable and call more of the kernel.
MOST = {"vllm": 3.0, "ollama": 2.5, "front": 2.5}


@dataclass(frozen=True)
class Confined:
    """A unit and the exposure that it may have at most."""

    name: str
    most: float

    @property
    def file(self) -> str:
        """The unit's own text on the host."""
        return f"/etc/systemd/system/{self.name}"


def units(plan: HostPlan) -> Iterator[Confined]:
    """The lasting units of a plan."""
    for service in plan.services:
        yield Confined(service.unit, MOST[service.engine])
    if plan.gateway:
        yield Confined(gateway.UNIT, MOST["front"])
