"""The lock that lies beside the inventory of this run, and whether a host may leave it."""

from pathlib import Path

import click
from pyinfra.api.host import Host

from plan import lock, locking
from plan.decide import plan_host
from plan.errors import PlanError
from plan.host import HostPlan
from plan.lock import Lock
from plan.model_facts import Facts
from plan.models_host import Pins
from plan.probe import Probe
from plan.settings import Settings

# Where the lock of this run's inventory would lie, and what is in it once it was read.
_path: list[Path] = []
_read: dict[Path, Lock | PlanError] = {}


def use_beside(inventory: str | None) -> None:
    """From now on plans are held to the lock beside this inventory, when there is one."""
    _path[:] = [lock.path_of(Path(inventory))] if inventory and Path(inventory).is_file() else []


def inventory_of_the_command_line() -> str | None:
    """What was given to pyinfra as its inventory; only while it reads its command line."""
    context = click.get_current_context(silent=True)
    found = context.params.get("inventory") if context else None
    return found if isinstance(found, str) else None


def planned(host: Host, wanted: Settings, probe: Probe, facts: Facts, pins: Pins | None = None) -> HostPlan:
    """The host's plan, held to the lock; with `--data relock=true` a host that drifts gets a plan of its own.

    Raises:
        PlanError: there is no plan, or it drifts from the lock.
    """
    held = _lock()
    if held is None:
        return plan_host(host.name, wanted, probe, facts, pins)
    try:
        plan = plan_host(host.name, locking.held(wanted, host.name, held), probe, facts, pins)
        return locking.apply(plan, wanted, probe, held, _path[0].name)
    except PlanError:
        if not _may_leave(host):
            raise
        return plan_host(host.name, wanted, probe, facts, pins)


def _lock() -> Lock | None:
    if not _path or not _path[0].is_file():
        return None
    path = _path[0]
    if path not in _read:
        try:
            _read[path] = lock.read(path)
        except PlanError as error:
            _read[path] = error
    found = _read[path]
    if isinstance(found, PlanError):
        raise found
    return found


def _may_leave(host: Host) -> bool:
    return str(host.inventory.get_override_data().get("relock", "")).lower() in ("true", "yes", "1")
