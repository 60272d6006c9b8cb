"""A changed service answers before the one that served is taken away."""

import dataclasses
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from pyinfra.api.command import FunctionCommand, PyinfraCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta, operation
from pyinfra.api.state import State
from pyinfra.context import host

from ops import files, task, units
from ops.remote import Remote, privileges
from ops.render import render
from plan import gateway, service_figures
from plan.host import ServicePlan
from plan.probe import Probe
from plan.replacing import second_unit

# As long as nginx lets a worker finish its answers (`worker_shutdown_timeout`), and a little.
DRAIN_SECONDS = 630


@dataclass(frozen=True)
class Change:
    """A service as it shall be, and the second server that answers meanwhile.

    Attributes:
        service: what is waited for, and which settings it follows from.
        file: its unit file.
        name: of the service in the settings, by which its front knows it.
        second: text of the second server's unit; `address`: where that listens.
        check: a shell command that fails when this unit cannot work.
    """

    service: units.Service
    file: files.File
    name: str
    second: str
    address: str
    check: str | None = None

    @property
    def work(self) -> task.Task:
        """The work on the host, which outlives the connection."""
        script = render(
            "units/replace.sh.j2",
            unit=self.service.unit,
            second=second_unit(self.service.unit),
            text=self.file.text.rstrip("\n"),
            second_text=self.second.rstrip("\n"),
            second_address=self.address,
            front=gateway.UNIT,
            switches=gateway.SWITCHES,
            switch=switch(self.name),
            previous=self.service.previous,
            drain_seconds=DRAIN_SECONDS,
            warning=task.WARNING,
        )
        name = f"replace-{self.service.unit.removesuffix('.service')}"
        return task.Task(name, self.service.label, script)


def change(service: ServicePlan, text: Callable[[ServicePlan], str], check: str | None = None) -> Change:
    """What a service shall be, from a function that gives the unit file's text of a server."""
    watched = units.Service(
        service.unit,
        f"service {service.name}",
        service.start_timeout_seconds + 90,
        setting=f"serve.{service.name}",
        fronted=service.fronted,
        previous=f"{units.PREVIOUS}/{service.unit}",
        tells=service_figures.PATTERN,
        heard=lambda journal: service_figures.told(service, journal),
    )
    file = files.File(f"/etc/systemd/system/{service.unit}", text(service))
    second = service.second or service
    return Change(watched, file, service.name, text(second), second.inner, check)


def switch(name: str) -> str:
    """What turns the front from a service to its second server."""
    return f"{gateway.SWITCHES}/{name}.conf"


@operation()
def replaced(
    change: Change,
    probe: Probe,
    because: Iterable[OperationMeta] = (),
    restart: bool = False,
) -> Generator[PyinfraCommand, None, None]:
    """Lets a changed unit answer, turns the front to it, and only then ends what served.

    It starts twice: beside the old one, and where it stays. When it does not answer, nothing has changed.
    """
    files.mean(change.file)
    unit = probe.units.get(change.service.unit)
    left = second_unit(change.service.unit) in probe.units
    changed = restart or left or change.file.differs(probe.paths.get(change.file.path))
    if unit and unit.serves and not changed and not any(meta.changed for meta in because):
        host.noop(f"{change.service.unit} serves")
        return
    if change.check:
        yield StringCommand(change.check)
    yield task.start_command(change.work)
    yield FunctionCommand(_join, (change, privileges()), {})


def _join(state: State, host: Host, change: Change, given: dict[str, Any]) -> bool:
    started = time.monotonic()
    if task.joined(state, host, change.work, given):
        return True
    second = dataclasses.replace(change.service, unit=second_unit(change.service.unit))
    return units.explain(Remote(host, given), second, time.monotonic() - started)


def serve(change: Change, service: ServicePlan, probe: Probe, because: Iterable[OperationMeta] = ()) -> None:
    """Makes a service what it shall be: beside the one that serves, where the plan says so, else after it."""
    restart = not all(model.there(probe) for model in service.models)
    unit = probe.units.get(service.unit)
    if service.second and unit and unit.active == "active":
        replaced(
            change=change,
            probe=probe,
            because=because,
            restart=restart,
            name="Serve the model; a changed one beside the old one",
        )
        return
    written = files.write(
        files=[change.file],
        seen=probe.paths,
        check=change.check,
        keep=units.PREVIOUS,
        name="Write the unit",
    )
    units.serving(
        service=change.service,
        seen=probe.units,
        because=[written, *because],
        restart=restart,
        name="Serve the model",
    )
    remove_second(unit=service.unit, probe=probe)


def remove_second(unit: str, probe: Probe) -> None:
    """Takes away a second server that a run which was cut has left; the front finds the first by itself."""
    second = second_unit(unit)
    name = unit.partition("-")[2].removesuffix(".service")
    units.gone(
        unit=second,
        paths=[f"/run/systemd/system/{second}", switch(name)],
        seen=probe.units,
        name="Remove the second server",
    )
