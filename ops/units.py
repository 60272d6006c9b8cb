"""systemd services: enabled, started once, restarted only for a reason, joined until they serve."""

import re
import shlex
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand, PyinfraCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta, operation
from pyinfra.api.state import State
from pyinfra.context import host

from ops import report
from ops.remote import Remote, privileges
from ops.waiting import SHORTENED, journal, say, shown, wait
from plan import failures, startup
from plan.probe import Unit
from plan.report import Figure

# RestartSteps and RestartMaxDelaySec; an older systemd complains of them.
BACKOFF_FROM_SYSTEMD = 254
# What a changed unit replaces, until the changed one serves.
PREVIOUS = "/etc/bringup/previous"
# Of a starting server's journal: among them is what it is at.
NEWEST_LINES = 30
# Among which it has told of itself, all it said since it was started; a figure more or less is no loss.
TOLD_LINES = 5000
# Lines of a journal that say why: an exception with its message, systemd on the kernel; not those that only
# point at another one, and no warnings.
CAUSE = re.compile(r"\b\w*(Error|Exception|error): \S|OOM killer|oom-kill")
ELSEWHERE = re.compile(r"WARNING|[Ss]ee (root cause|stack trace)")


@dataclass(frozen=True)
class Service:
    """A service unit that shall run.

    Attributes:
        unit: its name.
        label: what it is, for the operator's eyes.
        timeout_seconds: bounds the wait until it is active.
        setting: the settings that it follows from, such as `serve.chat`.
        previous: where its unit file was kept when this run replaced it.
        fronted: whether it stands behind the front, so that its port is in no setting.
        mark: a file that stands until it has loaded what was written for it.
    """

    unit: str
    label: str
    timeout_seconds: int
    setting: str = "serve.*"
    fronted: bool = False
    previous: str | None = None
    mark: str | None = None
    # a pattern of journal lines in which it tells of itself, and who is given them once it serves
    tells: str = ""
    heard: Callable[[str], Iterable[Figure]] = lambda _: ()


@operation()
def serving(
    service: Service,
    seen: Mapping[str, Unit],
    because: Iterable[OperationMeta] = (),
    restart: bool = False,
    reload_because: Iterable[OperationMeta] = (),
    reload: bool = False,
) -> Generator[PyinfraCommand, None, None]:
    """Makes a service enabled and active; restarts it if asked, or if an operation in `because` changed.

    A change in `reload_because`, or `reload` alone, is reloaded: what is under way goes on. When what served
    before this run does not serve after it, and `service.previous` is kept, that is put back; the run fails
    all the same. A unit that is starting is not disturbed but joined: a run that was cut does not cost a
    second start.
    """
    unit = seen.get(service.unit)
    changed = restart or any(meta.changed for meta in because)
    loaded = f" && rm -f {service.mark}" if service.mark else ""
    reload = reload or any(meta.changed for meta in reload_because)
    if not changed and unit and unit.serves:
        if reload:
            yield StringCommand(f"systemctl reload {service.unit}{loaded}")
        else:
            host.noop(f"{service.unit} serves")
        return
    changed = changed or reload
    starting = unit is not None and unit.active == "activating" and not unit.needs_reload
    verb = "start" if starting and not changed else "restart"
    yield StringCommand(f"{start_command(service.unit, verb)}{loaded}")
    replaced = changed and unit is not None and unit.active == "active"
    yield FunctionCommand(_join, (service, privileges(), replaced), {})


def start_command(unit: str, verb: str) -> str:
    """Enables a unit and starts or restarts it, without waiting for it."""
    return (
        f"systemctl daemon-reload && systemctl reset-failed {unit} 2>/dev/null; "
        f"systemctl --quiet enable {unit} && systemctl --no-block {verb} {unit}"
    )


@operation()
def restart_if_older(
    service: Service, than: str, needed: bool = True
) -> Generator[PyinfraCommand, None, None]:
    """Restarts a service that was started before a file on the host was last written, and waits for it."""
    if not needed:
        host.noop(f"{service.unit} is not asked")
        return
    yield FunctionCommand(_restart_if_older, (service, than, privileges()), {})


def _restart_if_older(state: State, host: Host, service: Service, than: str, given: dict[str, Any]) -> bool:
    started = f"$({shown('ExecMainStartTimestamp', service.unit)})"
    answer = Remote(host, given).run(
        f"systemctl --quiet is-active {service.unit} || exit 0\n"
        f'[ "$(stat -c %Y {shlex.quote(than)})" -ge "$(date -d "{started}" +%s)" ] || exit 0\n'
        f"systemctl --no-block restart {service.unit} && echo restarted"
    )
    if answer.text.strip() != "restarted":
        return answer.ok
    return _join(state, host, service, given, replaced=False)


@operation()
def gone(unit: str, paths: Iterable[str], seen: Mapping[str, Unit]) -> Generator[str, None, None]:
    """Stops, disables and removes a unit that is there, with its file and all else that is its own."""
    if unit not in seen:
        host.noop(f"{unit} is gone")
        return
    yield (
        f"systemctl --quiet disable --now {unit}; rm -rf -- {' '.join(paths)} && systemctl daemon-reload; "
        f"systemctl reset-failed {unit} 2>/dev/null; true"
    )


def _join(state: State, host: Host, service: Service, given: dict[str, Any], replaced: bool) -> bool:
    """Waits until the unit is active or cannot become it. False fails this host alone."""
    remote = Remote(host, given)
    if _becomes_active(remote, service):
        return True
    if replaced and service.previous:
        _put_back(remote, service, service.previous)
    return False


def _becomes_active(remote: Remote, service: Service) -> bool:
    def judge(text: str, waited: float) -> bool | None:
        first, _, words = text.partition("\n")
        active, restarts, job = first.split()
        if active == "active":
            report.measured(remote.host.name, service.heard(words))
            say(remote, service.label, f"serves after {waited:.0f} s")
            return True
        # what a restart ends may pass through "failed" before it is started again: then a job is pending
        failed = active == "failed" and job == "none"
        if failed or int(restarts) >= 2 or waited > service.timeout_seconds:
            return explain(remote, service, waited)
        return None

    show = partial(shown, unit=service.unit)
    look = (
        f"job=$({show('Job')}); state=$({show('ActiveState')}); "
        f'echo "$state $({show("NRestarts")}) ${{job:-none}}"; '
    )
    look += f"if [ $state != active ]; then {journal(service.unit, NEWEST_LINES)} | {SHORTENED}"
    if service.tells:
        # journalctl's own --grep is not in every distribution's
        told = f"{journal(service.unit, TOLD_LINES)} | grep -E {shlex.quote(service.tells)}"
        look += f"; else {told} | {SHORTENED}"
    look += "; fi"
    if service.previous:
        # it was kept for this one
        look += f"; if [ $state = active ]; then rm -f {service.previous}; fi"
    return wait(remote, service.label, look, judge, news=lambda text: startup.stage(text.partition("\n")[2]))


def _put_back(remote: Remote, service: Service, previous: str) -> None:
    """What served before serves again; if its Python packages are still those that it ran on."""
    unit = f"/etc/systemd/system/{service.unit}"
    pins = "grep -h ^X-Bringup-Pins="
    script = (
        f"[ -f {previous} ] || {{ echo none; exit; }}\n"
        f'[ "$({pins} {previous})" = "$({pins} {unit})" ] || exit 0\n'
        f"install -m 644 {previous} {unit} && systemctl daemon-reload || exit 1\n"
        f"systemctl reset-failed {service.unit} 2>/dev/null\n"
        f"systemctl --no-block restart {service.unit} && echo restored"
    )
    said = remote.run(script).text
    if "none" in said:
        # its file is as it was: what has changed is what it runs on, or serves
        return
    if "restored" not in said:
        say(remote, service.label, "its Python packages have changed, so the old one is not put back.")
        return
    say(remote, service.label, "the old one is put back: its settings, its model.")
    _becomes_active(remote, service)


def explain(remote: Remote, service: Service, waited: float) -> bool:
    """Logs the newest errors of the unit's journal, what they mean and what to do about it; False."""
    newest = f"journalctl --quiet --no-pager --output=cat --lines=600 --since=-{waited + 5:.0f}s"
    text = remote.run(f"{newest} --unit={service.unit}").text
    lines = text.splitlines()
    errors = (
        [line for line in lines if CAUSE.search(line) and not ELSEWHERE.search(line)]
        or [line for line in lines if "error" in line.lower()]
        or lines
    )
    words = "\n".join(f"    {line}" for line in [*errors[-6:], f"More: journalctl -u {service.unit}"])
    hint = failures.explain(text, service.setting, service.fronted) or ""
    say(
        remote,
        service.label,
        f"does not serve after {waited:.0f} s. {hint}\n{words}",
        logger.error,
    )
    return False
