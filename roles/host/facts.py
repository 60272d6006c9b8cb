"""The probe: one read-only round trip that returns everything a decision needs."""

import pathlib
import re
import shlex
from collections.abc import Iterable

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase
from typing_extensions import override

from plan import probe
from plan.errors import PlanError
from plan.nvidia_table import names_to_look_for

SCRIPT = pathlib.Path(__file__).with_name("probe.sh")


def script(packages: Iterable[str]) -> str:
    """The probe's shell text, without its comments; `packages` are the distribution packages to look for."""
    text = re.sub(r"(?m)^ *#.*\n", "", SCRIPT.read_text())
    text = text.replace("@PACKAGES@", " ".join(packages))
    text = text.replace("@COMPLETE@", probe.COMPLETE).replace("@AT_WORK@", probe.AT_WORK)
    for manager in ("apt", "dnf"):
        text = text.replace(f"@DRIVER_{manager.upper()}@", shlex.join(names_to_look_for(manager)))
    return text


class ProbeText(FactBase[str]):
    """The probe's text as the host printed it."""

    @override
    def command(self) -> str:
        return script(probe.PACKAGES)

    @override
    def process(self, output: Iterable[str]) -> str:
        return "\n".join(output)


class Probe(FactBase[probe.Probe | None]):
    """What the host is, and what of ours is on it. None when it could not be read: the host has failed."""

    @override
    def command(self) -> str:
        return script(probe.PACKAGES)

    @override
    def process(self, output: Iterable[str]) -> probe.Probe:
        try:
            return probe.parse("\n".join(output))
        except PlanError as error:
            raise FactProcessError(str(error)) from error
