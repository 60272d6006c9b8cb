"""Writes down what a look at a host brought home, for `python -m plan lock`."""

import dataclasses
import os
from pathlib import Path

from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host

from ops.model_facts import facts_for
from ops.planning import layers
from ops.remote import Remote
from ops.render import render
from plan import apt_closure, dnf_closure, model_facts, settings, tokens
from plan.decide import package_manager, plan_host
from plan.errors import PlanError
from plan.lock_command import LOOK_FOLDER
from plan.nvidia_words import plan_text
from plan.probe import Probe, parse
from plan.seen import Seen
from plan.settings import Settings


def write_down(host: Host, probe: str) -> None:
    """Saves one host in the folder that the environment names.

    Args:
        host: pyinfra's host.
        probe: the probe's text.
    """
    data = settings.own(settings.merge(layers(host)))
    facts, problems = "", []
    try:
        wanted = settings.read([data])
        read = facts_for(host, wanted, parse(probe), {}, tokens.read(wanted.models))
        facts = model_facts.text(wanted, read) or ""
    except PlanError as error:
        problems = error.sentences
    driver = _offers(host, wanted, parse(probe), facts) if not problems else ""
    question = {"apt": apt_closure, "dnf": dnf_closure}[package_manager(parse(probe))].QUESTION
    asked, output = host.run_shell_command(StringCommand(question), **Remote.own(host))
    packages = str(output.stdout) if asked else ""
    Seen(host.name, data, probe, facts, tuple(problems), packages, driver).save(Path(os.environ[LOOK_FOLDER]))


def _offers(host: Host, wanted: Settings, probe: Probe, facts: str) -> str:
    """What the host's package sources would give it as its driver; empty where that is not asked.

    An answer that is none says why, after the word "problem".
    """
    try:
        plan = plan_host(host.name, wanted, probe, model_facts.read(facts) if facts else None)
    except PlanError:
        return ""
    if not plan.driver.maintained:
        return ""
    burn_in = plan.burn_in.packages if plan.burn_in and plan.burn_in.level else ()
    driver = dataclasses.replace(
        plan.driver,
        beside=(*plan.driver.beside, *burn_in),
        # what is installed is what a bundle shall have
        pinned=plan.driver.pinned or (None if plan.driver.work.install else plan.driver.version),
    )
    if driver.manager == "dnf":
        script = dnf_closure.driver_question(driver)
    else:
        script = render("nvidia/offers.sh", plan=plan_text(plan, driver), mirror=plan.apt_sources or "")
    asked, output = host.run_shell_command(StringCommand(script), **Remote.own(host))
    if asked:
        return str(output.stdout)
    said = str(output.stderr).strip().splitlines()
    return f"problem {said[-1] if said else 'it says nothing'}"
