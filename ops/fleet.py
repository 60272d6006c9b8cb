"""The hosts of this run that have a plan, for what they do together; complete once operations run."""

from pyinfra.context import state

from plan.host import HostPlan
from plan.probe import Probe

_plans: dict[str, tuple[HostPlan, Probe]] = {}


def note(plan: HostPlan, probe: Probe) -> None:
    """A host has its plan."""
    _plans[plan.host] = (plan, probe)


def members() -> list[tuple[HostPlan, Probe]]:
    """The plans and probes of the hosts that have not failed, in order of names."""
    active = {host.name for host in state.inventory.get_active_hosts()}
    return [_plans[name] for name in sorted(_plans) if name in active]
