"""Long work on the host, under systemd: it outlives the connection, and the next run joins it.

A task is a transient unit `bringup-NAME.service`. It is started when it is needed and not already under
way, and joined, with its newest line of output shown, when its result is wanted.
"""

import hashlib
import shlex
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand, PyinfraCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import host

from ops.remote import Remote, privileges
from ops.waiting import journal, say, shown, wait
from plan.probe import Unit

# A line of a task's output that begins so is shown to the operator when the task has ended well.
WARNING = "warning: "
MOST_LINES = 200
# One that fails stays to be looked at; one that is not there was taken away.
GONE = (
    "{unit} is not there any more: another run on this host took it over, somebody stopped it, "
    "or the host started anew. Run again once no other run is at work."
)


def unit(name: str) -> str:
    """The transient unit of the task of this name."""
    return f"bringup-{name}.service"


@dataclass(frozen=True)
class Task:
    """A shell script to run as root on the host.

    Attributes:
        name: of the unit, without `bringup-` and `.service`.
        label: what it does, for the operator's eyes: "installing torch".
        script: POSIX shell, run with `set -eu`; must complete a half-done earlier run.
        environment: variables of the unit; no secrets, since unit properties are public.
        properties: further systemd properties, such as the user to run as.
    """

    name: str
    label: str
    script: str
    environment: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """The transient unit's name."""
        return unit(self.name)

    @property
    def digest(self) -> str:
        """Tells this task from one of the same name with other work."""
        text = repr((self.script, sorted(self.environment.items()), sorted(self.properties.items())))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@operation()
def start(
    task: Task,
    needed: Callable[[], bool] | bool = True,
    circumstances: Callable[[], Iterable[str]] = tuple,
) -> Generator[StringCommand, None, None]:
    """Starts a task unless the same one is under way; does not wait for it.

    Args:
        task: what to start.
        needed: whether it is.
        circumstances: gives further options of systemd-run, which do not make it another task.
    """
    if not (needed() if callable(needed) else needed):
        host.noop(f"{task.name} is done")
        return
    yield start_command(task, circumstances())


@operation()
def join(
    task: Task,
    needed: Callable[[], bool] | bool = True,
    rescue: Callable[[Remote], Iterable[str] | None] = lambda _: None,
) -> Generator[PyinfraCommand, None, None]:
    """Waits for a task that was started, shows its progress, fails with its last words.

    Args:
        task: what to wait for.
        needed: whether it was started.
        rescue: mends what made it fail; gives options of systemd-run to start it with again, or None.
    """
    if not (needed() if callable(needed) else needed):
        host.noop(f"{task.name} is done")
        return
    yield FunctionCommand(joined, (task, privileges(), rescue), {})


@operation()
def clear(seen: Mapping[str, Unit]) -> Generator[str, None, None]:
    """Clears away tasks that ended well when the run that started them was gone.

    Until then systemd keeps what it does after them, such as closing the ports of an exchange.
    """
    ended = [
        name
        for name, unit in sorted(seen.items())
        if name.startswith("bringup-") and (unit.active, unit.sub) == ("active", "exited")
    ]
    if not ended:
        host.noop("no task has ended unseen")
        return
    # one that this run has joined since is unknown to systemd by now
    yield (
        f"for unit in {shlex.join(ended)}; do "
        f'if [ "$({shown("SubState", "$unit")})" = exited ]; then systemctl stop "$unit"; fi; done'
    )


@operation()
def stop(names: Iterable[str], seen: Mapping[str, Unit]) -> Generator[str, None, None]:
    """Stops tasks that a run which was cut left at work, and that nobody waits for any more."""
    running = [unit(name) for name in names if unit(name) in seen and seen[unit(name)].sub == "running"]
    if not running:
        host.noop("no such task is at work")
        return
    # one that has ended since is unknown to systemd by now
    yield f"systemctl stop {shlex.join(running)} 2>/dev/null || true"


@operation()
def run(task: Task, needed: Callable[[], bool] | bool = True) -> Generator[PyinfraCommand, None, None]:
    """Starts a task and waits for it."""
    if not (needed() if callable(needed) else needed):
        host.noop(f"{task.name} is done")
        return
    yield start_command(task)
    yield FunctionCommand(joined, (task, privileges()), {})


def start_command(task: Task, circumstances: Iterable[str] = ()) -> StringCommand:
    """The command that starts the task, unless it is running with the same work already."""
    description = f"bringup: {task.label} [{task.digest}]"
    settings = [f"--setenv={name}={value}" for name, value in sorted(task.environment.items())]
    settings += [f"--property={name}={value}" for name, value in sorted(task.properties.items())]
    launch = [
        "systemd-run",
        "--quiet",
        f"--unit={task.unit}",
        f"--description={description}",
        "--property=RemainAfterExit=yes",
        "--property=TimeoutStopSec=20",
        *settings,
        *circumstances,
        "/bin/sh",
        "-euc",
        # systemd would put its own variables where the script has its ones
        task.script.replace("$", "$$"),
    ]
    return StringCommand(
        f'if [ "$({shown("SubState", task.unit)}) $({shown("Description", task.unit)})" != '
        f"{shlex.quote(f'running {description}')} ]; then "
        f"systemctl stop {task.unit} 2>/dev/null; systemctl reset-failed {task.unit} 2>/dev/null; "
        f"{shlex.join(launch)}; fi"
    )


def joined(
    state: State,
    host: Host,
    task: Task,
    given: dict[str, Any],
    rescue: Callable[[Remote], Iterable[str] | None] = lambda _: None,
) -> bool:
    """Waits until the task has ended. Returns whether it succeeded; False fails this host alone."""
    remote = Remote(host, given)

    def judge(text: str, waited: float) -> bool | None:
        ended, _, words = text.partition("\n")
        if ended == "exited":
            for line in words.splitlines():
                if line.startswith(WARNING):
                    say(remote, task.label, line, logger.warning)
            return True
        if ended == "dead":
            say(remote, task.label, GONE.format(unit=task.unit), logger.error)
            return False
        if ended != "failed":
            return None
        again = rescue(remote)
        if again is None:
            return _failed(remote, task, waited)
        command = str(start_command(task, again))
        return None if remote.run(command).ok else _failed(remote, task, waited)

    # a task that ended well says its warnings and is cleared away in the same trip
    look = (
        f"state=$({shown('SubState', task.unit)}); echo $state; "
        f"if [ $state = exited ]; then {journal(task.unit, MOST_LINES)} | grep '^{WARNING}'; "
        f"systemctl stop {task.unit}; else {journal(task.unit, 1)}; fi"
    )
    return wait(remote, task.label, look, judge, news=lambda text: text.partition("\n")[2])


def _failed(remote: Remote, task: Task, waited: float) -> bool:
    # its last words may still be on their way to the journal
    look = f"journalctl --sync; {journal(task.unit, 12)}; systemctl reset-failed {task.unit}"
    words = remote.run(look).text.strip()
    lines = "\n".join(f"    {line}" for line in words.splitlines() or ["(none)"])
    say(remote, task.label, f"failed after {waited:.0f} s. Its last words:\n{lines}", logger.error)
    return False
