"""Writes down what a look at a host brought home, for `python -m plan lock`."""

import os
from pathlib import Path

from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host

from ops.model_facts import facts_for
from ops.planning import layers
from ops.remote import Remote
from plan import apt_closure, dnf_closure, model_facts, settings, tokens
from plan.decide import package_manager
from plan.errors import PlanError
from plan.lock_command import LOOK_FOLDER
from plan.probe import parse
from plan.seen import Seen


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
    question = {"apt": apt_closure, "dnf": dnf_closure}[package_manager(parse(probe))].QUESTION
    asked, output = host.run_shell_command(StringCommand(question), **Remote.own(host))
    packages = str(output.stdout) if asked else ""
    Seen(host.name, data, probe, facts, tuple(problems), packages).save(Path(os.environ[LOOK_FOLDER]))
