"""Ports that a host's services cannot have."""

from collections.abc import Iterable, Iterator

from plan.gateway_host import holds
from plan.host import ServicePlan
from plan.probe import Probe


def _is_held_by(service: ServicePlan, holder: str, probe: Probe) -> bool:
    """Whether the service is who listens on its port; its port may have been another one's until now."""
    return (
        probe.unit_ports.get(service.port) == service.unit
        or f"(pid {probe.units[service.unit].main_pid})" in holder
    )


def taken(services: Iterable[ServicePlan], probe: Probe) -> Iterator[str]:
    """Planned ports on which another program of this very host listens, a sentence each."""
    for service in services:
        holder = probe.listening.get(service.port)
        unit = probe.units.get(service.unit)
        there = unit is not None and unit.active in ("active", "activating", "reloading", "deactivating")
        ours = there and _is_held_by(service, holder or "", probe)
        # a front goes on listening while what it stands before is stopped, or is gone since a run was cut
        if holder is not None and not ours and not holds(probe, service.port):
            yield (
                f"serve.{service.name}.port: {service.port} is taken on this host by {holder}. "
                f"Set serve.{service.name}.port to a free one."
            )
