"""What the front means on a host beside its services: whom it guards, what it holds, and when it goes."""

from collections.abc import Iterable, Iterator

from plan import gateway
from plan.gateway import Exposed, GatewayPlan
from plan.host import ServicePlan
from plan.probe import Probe
from plan.sections import Settings


def plan_front(settings: Settings, services: Iterable[ServicePlan], probe: Probe) -> GatewayPlan | None:
    """The plan of the front; None when no service is exposed.

    Raises:
        PlanError: the nginx that is there cannot check the key.
    """
    exposed = [
        Exposed(service.name, service.engine, service.address, service.port, service.inner)
        for service in services
        if service.fronted
    ]
    return gateway.plan_gateway(settings, exposed, probe)


def removed_front(services: Iterable[ServicePlan], probe: Probe) -> Iterator[str]:
    """The paths of a front that has nothing to guard any more."""
    if not any(service.fronted for service in services):
        wanted = (gateway.UNIT_FILE, gateway.DIRECTORY, gateway.CACHE)
        yield from (path for path in wanted if path in probe.paths)


def holds(probe: Probe, port: int) -> bool:
    """Whether the front that is there has the port; since a run was cut, the service may be gone."""
    return gateway.UNIT in probe.units and port in probe.gateway.ports
