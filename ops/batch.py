"""Batches under systemd: started once, joined while they answer, done when their unit is active."""

import time
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from typing import Any

from pyinfra.api.command import FunctionCommand, PyinfraCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta, operation
from pyinfra.api.state import State
from pyinfra.context import host

from ops import report, units
from ops.remote import Remote, privileges
from ops.waiting import say, shown, wait
from plan.probe import Unit


@operation()
def answered(
    service: units.Service, seen: Mapping[str, Unit], because: Iterable[OperationMeta] = (), wait: bool = True
) -> Generator[PyinfraCommand, None, None]:
    """Makes a batch enabled and answered; one that is under way is not disturbed but joined.

    Args:
        service: its unit.
        seen: the units that the probe saw.
        because: operations whose change makes it start anew; what is answered stays answered.
        wait: False leaves it to itself once it is started.
    """
    unit = seen.get(service.unit)
    changed = any(meta.changed for meta in because)
    if not changed and unit and unit.serves:
        host.noop(f"{service.unit} is answered")
        return
    under_way = not changed and unit is not None and unit.active == "activating" and not unit.needs_reload
    if under_way and not wait:
        host.noop(f"{service.unit} is at work")
        return
    yield StringCommand(units.start_command(service.unit, "start" if under_way else "restart"))
    if wait:
        yield FunctionCommand(_join, (service, privileges()), {})


def _join(state: State, host: Host, service: units.Service, given: dict[str, Any]) -> bool:
    """Waits until all is answered, and shows how far it is. False fails this host alone."""
    remote, began = Remote(host, given), time.monotonic()

    def judge(text: str, waited: float) -> bool | None:
        how, _, words = text.partition("\n")
        active, _, job = how.partition(" ")
        if active == "active":
            say(remote, service.label, words.strip() or "answered")
            report.noted(host.name, f"{service.label}: {words.strip() or 'answered'}")
            return True
        # what waits for its next try is "activating" too
        return False if active == "failed" and job == "none" else None

    show = partial(shown, unit=service.unit)
    look = f'job=$({show("Job")}); echo "$({show("ActiveState")}) ${{job:-none}}"; {show("StatusText")}'
    if wait(remote, service.label, look, judge, news=lambda text: text.partition("\n")[2]):
        return True
    return units.explain(remote, service, time.monotonic() - began)
