"""From pyinfra's host to its plan: settings read, plan decided, shown, or this host refused alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import click
from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.context import state

from ops import bundles, fleet, locks, report
from ops.model_facts import facts_for
from ops.pins import pins_for
from plan import secrets, settings, show
from plan.errors import PlanError
from plan.host import HostPlan
from plan.places import Place
from plan.probe import Probe
from plan.secrets import Secrets
from plan.settings import Settings

_plans: dict[str, HostPlan] = {}


def layers(host: Host) -> list[Mapping[str, Any]]:
    """The host's data as pyinfra holds it, weakest first: all, groups, host, command line."""
    inventory = host.inventory
    return [
        inventory.get_data(),
        *(inventory.get_group_data(group) for group in host.groups),
        inventory.get_host_data(host.name),
        inventory.get_override_data(),
    ]


def plan_for(host: Host, probe: Probe | None) -> tuple[HostPlan | None, Secrets]:
    """The plan of this host, none when it is refused, and the secrets that its settings name.

    A refused host is marked as failed before anything is changed; the others go on, and pyinfra's exit
    code is 1.
    """
    plan: HostPlan | None = None
    found = Secrets()
    if probe is not None:
        try:
            wanted = settings.read(layers(host))
            found = secrets.read(wanted.access, models=wanted.models)
            place = bundles.place_for(host, wanted)
            server = bundles.server_on(host, wanted, probe)
            models = _models_of_the_bundle(host, wanted, place)
            wanted = locks.in_bundle(host, wanted, place)
            pins = pins_for(host, wanted, probe, found.tokens, locks.pins(host, wanted))
            facts = facts_for(host, wanted, probe, pins, found.tokens, models)
            plan = locks.planned(host, wanted, probe, facts, pins)
            warnings = (*plan.warnings, *found.warnings)
            plan = dataclasses.replace(plan, warnings=warnings, bundle_server=server)
        except PlanError as error:
            refuse(host, error.sentences)
        except Exception as error:
            # pyinfra would stop the whole fleet; a defect of ours may cost the host that shows it, no more
            logger.debug("planning failed", exc_info=True)
            refuse(
                host, [f"plan: a defect ({type(error).__name__}: {error}). Run with --debug and report it."]
            )
    if plan and probe:
        fleet.note(plan, probe)
        _plans[host.name] = plan
        report.planned(host.name, plan, probe)
    _show_when_complete()
    return plan, found


def _models_of_the_bundle(host: Host, wanted: Settings, place: str | None) -> tuple[Host, Place] | None:
    """Who can read the models of a bundle that is not on the host itself, and where; None: the host.

    The host that serves it may not do so yet, and lets in no operator.
    """
    if place and place.startswith("operator:"):
        return host, Place("operator", f"{place.partition(':')[2]}/models")
    serving = host.inventory.get_host(wanted.bundle.serve_from) if wanted.bundle.serve_from else None
    if not place or serving is None or serving.name == host.name or not serving.connected:
        return None
    directory = settings.read(layers(serving)).sources.bundle
    return serving, Place("host", f"{directory}/models")


def refuse(host: Host, sentences: list[str]) -> None:
    """Fails this host alone. `state.fail_hosts` would ask on a terminal, or stop the fleet."""
    report.refused(host.name, sentences)
    for sentence in sentences:
        logger.error(click.style(f"refused: {host.name}: {sentence}", fg="red"))
    state.failed_hosts.add(_self(host))
    state.active_hosts.discard(_self(host))


def _self(host: Host) -> Host:
    """The host behind pyinfra's context proxy."""
    found: Host = state.inventory.get_host(host.name)
    return found


def _show_when_complete() -> None:
    """One table for the fleet, once every host that still takes part has its plan."""
    waiting = {host.name for host in state.inventory.get_active_hosts()} - set(_plans)
    if not waiting and _plans:
        click.echo(show.plans(list(_plans.values())), err=True)
        _plans.clear()
