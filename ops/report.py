"""What a deploy did, kept while it runs and written when it ends, however it ends."""

import atexit
import logging
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.api.state import BaseStateCallback, State
from pyinfra.context import ctx_state

from ops import report_files
from ops.version import version
from plan import service_figures
from plan.host import HostPlan
from plan.probe import Probe
from plan.report import Figure, HostReport, Report, Step, described, sentences

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PREFIX = re.compile(r"^\s*\[(?P<host>[^\]]+)\]\s*(?P<text>.*)", re.DOTALL)


@dataclass
class _Kept:
    """What is known of one host so far."""

    plan: HostPlan | None = None
    probe: Probe | None = None
    refusals: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


class _Run(BaseStateCallback):
    """One run of pyinfra. Its state calls this at every operation of every host."""

    def __init__(self, state: State, inventory: str) -> None:
        self.state, self.inventory = state, inventory
        self.began, self.started = time.monotonic(), datetime.now().astimezone()
        self.hosts: dict[str, _Kept] = {}
        self.times: dict[tuple[str, str], list[float]] = {}

    def kept(self, name: str) -> _Kept:
        return self.hosts.setdefault(name, _Kept())

    def operation_host_start(self, state: State, host: Host, op_hash: str) -> None:  # type: ignore[override]
        self.times[host.name, op_hash] = [time.monotonic()]

    def operation_host_success(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0
    ) -> None:
        self.times[host.name, op_hash].append(time.monotonic())

    def operation_host_error(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        self.times[host.name, op_hash].append(time.monotonic())

    def write(self) -> None:
        """At the end of the process; a run that only showed what it would do leaves nothing."""
        nothing_left = self.state.initialised and not self.state.active_hosts and "--dry" not in sys.argv
        if not (self.state.is_executing or nothing_left):
            return
        try:
            page = report_files.write(self.report())
        except OSError as error:
            click.echo(f"The report could not be written: {error}.", err=True)
        else:
            click.echo(f"Report: {page}", err=True)

    def report(self) -> Report:
        part = self.state.activated_hosts | self.state.failed_hosts
        hosts = [host for host in self.state.inventory if host in part]
        return Report(
            kind="deploy",
            version=version(),
            started=self.started.isoformat(timespec="seconds"),
            seconds=time.monotonic() - self.began,
            inventory=self.inventory,
            hosts=tuple(self._host(host) for host in hosts),
            exit_code=1 if self.state.failed_hosts else 0,
        )

    def _host(self, host: Host) -> HostReport:
        kept = self.kept(host.name)
        steps = tuple(self._steps(host))
        outcome, messages = self._outcome(host, kept, steps)
        fields = described(kept.plan, kept.probe)
        return HostReport(
            name=host.name,
            outcome=outcome,
            problems=sentences(messages),
            steps=steps,
            figures=(*(service_figures.predicted(kept.plan) if kept.plan else ()), *kept.figures),
            **fields | {"notes": (*fields.get("notes", ()), *kept.notes)},
        )

    def _outcome(self, host: Host, kept: _Kept, steps: Iterable[Step]) -> tuple[str, list[str]]:
        if kept.refusals:
            return "refused", kept.refusals
        if host not in self.state.failed_hosts:
            changed = any(step.outcome == "changed" for step in steps)
            return "changed" if changed else "unchanged", []
        fix = f"Try `pyinfra {self.inventory} --limit {host.name} exec -- true`."
        if host not in self.state.activated_hosts:
            why = [f"could not be reached: {error.rstrip('.')}. {fix}" for error in kept.errors]
            return "unreachable", why or [f"could not be reached. {fix}"]
        if kept.probe is None and not kept.errors:
            return "unreachable", [f"could not be reached, or its answer broke off. {fix}"]
        return "failed", kept.errors or [
            "an operation failed. Its output is in the run's log; run again to go on from there."
        ]

    def _steps(self, host: Host) -> Iterable[Step]:
        for op_hash in self.state.get_op_order():
            times = self.times.get((host.name, op_hash))
            if not times or op_hash not in self.state.ops[host]:
                continue
            meta = self.state.get_op_data_for_host(host, op_hash).operation_meta
            begun, ended = times[0], times[-1] if len(times) > 1 else time.monotonic()
            yield Step(
                name=" / ".join(sorted(self.state.get_op_meta(op_hash).names)),
                start_seconds=round(begun - self.began, 3),
                seconds=round(ended - begun, 3),
                outcome=_outcome_of(meta),
            )


def _outcome_of(meta: Any) -> Any:
    if not meta.is_complete() or not meta.did_succeed():
        return "failed"
    return "changed" if meta.did_change() else "unchanged"


class _Errors(logging.Handler):
    """Errors that were told of a host, without their colours."""

    def emit(self, record: logging.LogRecord) -> None:
        found = _PREFIX.match(_COLOURS.sub("", record.getMessage()))
        if not found or not _run or not _run.state.initialised:
            return
        if found["host"] not in {host.name for host in _run.state.inventory}:
            return
        # pyinfra's own word for "this operation failed" says less than ours
        if not re.match(r"Error: executed \d+ commands", found["text"]):
            _run.kept(found["host"]).errors.append(found["text"])


_run: _Run | None = None
_named: list[str] = []


def expect(deploy: str, inventory: str) -> None:
    """Called before anything is connected to, so that a deploy that reaches no host is reported too.

    Args:
        deploy: the file whose runs are reported; pyinfra reads its configuration for other commands as well.
        inventory: as the operator named it; pyinfra keeps no word of it.
    """
    _named[:] = [inventory]
    if deploy in sys.argv and ctx_state.isset():
        _begin(ctx_state.get())


def begin(host: Host) -> None:
    """Called for every host before anything is asked of it."""
    run = _begin(host.state)
    if run not in host.state.callback_handlers:
        host.state.add_callback_handler(run)


def _begin(state: State) -> _Run:
    global _run
    if _run is None:
        _run = _Run(state, "".join(_named))
        logger.addHandler(_Errors(logging.ERROR))
        atexit.register(_run.write)
    return _run


def planned(name: str, plan: HostPlan, probe: Probe) -> None:
    """A host has its plan."""
    if _run:
        _run.kept(name).plan, _run.kept(name).probe = plan, probe


def noted(name: str, note: str) -> None:
    """What a host said in passing, worth keeping."""
    if _run:
        _run.kept(name).notes.append(note)


def measured(name: str, figures: Iterable[Figure]) -> None:
    """What a service of a host told of itself."""
    if _run:
        _run.kept(name).figures += figures


def refused(name: str, why: Iterable[str]) -> None:
    """A host has none, and these sentences say why."""
    if _run:
        _run.kept(name).refusals += why
