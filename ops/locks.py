"""The lock that lies beside the inventory of this run, and whether a host may leave it."""

from pathlib import Path

import click
from pyinfra.api.host import Host

from plan import bundled, lock, locking
from plan.decide import plan_host
from plan.errors import PlanError
from plan.host import HostPlan
from plan.lock import Lock
from plan.model_facts import Facts
from plan.models_host import Pins, recorded_pins
from plan.probe import Probe
from plan.settings import Settings

# Where the lock of this run's inventory would lie, and what is in it once it was read.
_path: list[Path] = []
_read: dict[Path, Lock | PlanError] = {}
# Host -> digest of its part of the lock, where its plan is held to that.
_held: dict[str, str] = {}


def use_beside(inventory: str | None) -> None:
    """From now on plans are held to the lock beside this inventory, when there is one."""
    _path[:] = [lock.path_of(Path(inventory))] if inventory and Path(inventory).is_file() else []


def inventory_of_the_command_line() -> str | None:
    """What was given to pyinfra as its inventory; only while it reads its command line."""
    context = click.get_current_context(silent=True)
    found = context.params.get("inventory") if context else None
    return found if isinstance(found, str) else None


def in_bundle(host: Host, wanted: Settings, place: str | None) -> Settings:
    """The settings with every source in the bundle, when there is one.

    Raises:
        PlanError: there is no lock, so nobody knows what the bundle shall have.
    """
    if place is None:
        return wanted
    held = _lock()
    if held is None:
        raise PlanError(
            ["sources.bundle: a bundle needs its lock beside the inventory. Run `python -m plan lock`."]
        )
    return bundled.settings_in(wanted, held, host.name, place)


def pins(host: Host, wanted: Settings) -> Pins:
    """The commits that the lock has of the host's models; held also where a host may leave the rest of it."""
    held = _lock()
    return locking.pins(wanted, host.name, held) if held else {}


def planned(host: Host, wanted: Settings, probe: Probe, facts: Facts, pins: Pins | None = None) -> HostPlan:
    """The host's plan, held to the lock; with `--data relock=true` a host that drifts gets a plan of its own.

    Raises:
        PlanError: there is no plan, or it drifts from the lock.
    """
    _held.pop(host.name, None)
    held = _lock()
    if held is None:
        return plan_host(host.name, wanted, probe, facts, pins)
    place = wanted.sources.bundle
    try:
        plan = plan_host(host.name, locking.held(wanted, host.name, held), probe, facts, pins)
        plan = locking.apply(plan, wanted, probe, held, _path[0].name)
        _held[host.name] = locking.digest(host.name, held)
        return bundled.apply(plan, wanted, held, place) if place else plan
    except PlanError:
        # a bundle has what the lock has, and nothing for a plan of its own
        if place or not _may_leave(host):
            raise
        return plan_host(host.name, wanted, probe, facts, pins)


def seen_apart(host: Host, wanted: Settings, probe: Probe, facts: Facts) -> tuple[HostPlan, str]:
    """The host's plan for who only looks: where it drifts from the lock its own, and the sentence of that.

    Raises:
        PlanError: there is no plan at all.
    """
    try:
        return planned(host, wanted, probe, facts, {**recorded_pins(wanted, probe), **pins(host, wanted)}), ""
    except PlanError as error:
        if wanted.sources.bundle:
            raise
        return plan_host(host.name, wanted, probe, facts), " ".join(error.sentences)


def digest(name: str) -> str:
    """What changes with the part of the lock that a host's plan is held to; empty where none is."""
    return _held.get(name, "")


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
