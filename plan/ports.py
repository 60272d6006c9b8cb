"""Ports that a host's services cannot have."""

from collections.abc import Iterable, Iterator

from plan.gateway import UNIT as FRONT
from plan.host import ServicePlan
from plan.probe import Probe


def taken(services: Iterable[ServicePlan], probe: Probe) -> Iterator[str]:
    """Planned ports on which another program of this very host listens, a sentence each."""
    for service in services:
        holder = probe.listening.get(service.port)
        # a front goes on listening while what it stands before is stopped
        units = [unit for name in (service.unit, FRONT) if (unit := probe.units.get(name))]
        ours = any(unit.active in ("active", "activating", "reloading", "deactivating") for unit in units)
        if holder is not None and not ours:
            yield (
                f"serve.{service.name}.port: {service.port} is taken on this host by {holder}. "
                f"Set serve.{service.name}.port to a free one."
            )
