"""A task is started once, joined while it runs, replaced when its work is another.

The commands run in a real shell; systemd is two programs that answer as it does and write down their calls.
"""

import os
import subprocess
from pathlib import Path

import pytest

from ops.task import Task, start_command

TASK = Task(
    "torch",
    "installing torch (it's large)",
    "echo 'one two' $$\nexit ${code%%.*}",
    {"UV_CACHE_DIR": "/var/cache/a b"},
    {"User": "bringup"},
)


def description(task: Task) -> str:
    return f"bringup: {task.label} [{task.digest}]"


class Systemd:
    """Stands where systemctl and systemd-run are looked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._program(
            "systemctl",
            'case "$*" in *"-p SubState "*) cat state;; *"-p Description "*) cat described;; esac',
        )
        self._program("systemd-run", "true")
        self.shows("dead", "bringup-torch.service")

    def _program(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(
            f'#!/bin/sh\ncd {self.folder}\nprintf "%s\\0" {name} "$@" >>calls; echo >>calls\n{script}\n'
        )
        path.chmod(0o755)

    def shows(self, state: str, described: str) -> None:
        (self.folder / "state").write_text(f"{state}\n")
        (self.folder / "described").write_text(f"{described}\n")

    def calls(self, task: Task) -> list[list[str]]:
        """What the command that starts the task calls, without the questions."""
        log = self.folder / "calls"
        log.unlink(missing_ok=True)
        path = f"{self.folder}:{os.environ['PATH']}"
        script = start_command(task).get_raw_value()
        subprocess.run(["sh", "-c", script], env=os.environ | {"PATH": path}, check=True)
        # a call ends with an empty argument's place: NUL, newline
        calls = [call.split("\0") for call in log.read_text().split("\0\n") if call]
        return [call for call in calls if call[1] != "show"]


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    return Systemd(tmp_path)


LAUNCHED = [
    *("systemd-run", "--quiet", "--unit=bringup-torch.service", f"--description={description(TASK)}"),
    *("--property=RemainAfterExit=yes", "--property=TimeoutStopSec=20"),
    *("--setenv=UV_CACHE_DIR=/var/cache/a b", "--property=User=bringup"),
    # systemd makes one of two, and of ${code%%.*} nothing
    *("/bin/sh", "-euc", "echo 'one two' $$$$\nexit $${code%%.*}"),
]


def test_a_task_that_is_not_there_is_started(systemd: Systemd) -> None:
    assert systemd.calls(TASK)[-1] == LAUNCHED


def test_the_same_task_under_way_is_left_alone(systemd: Systemd) -> None:
    systemd.shows("running", description(TASK))
    assert systemd.calls(TASK) == []


@pytest.mark.parametrize("state", ["exited", "failed", "dead"])
def test_the_same_task_that_ended_unjoined_is_cleared_and_started_again(systemd: Systemd, state: str) -> None:
    systemd.shows(state, description(TASK))
    stop, reset, launch = systemd.calls(TASK)
    assert stop == ["systemctl", "stop", "bringup-torch.service"]
    assert reset == ["systemctl", "reset-failed", "bringup-torch.service"]
    assert launch == LAUNCHED


@pytest.mark.parametrize(
    "other",
    [
        Task(TASK.name, TASK.label, "echo other", TASK.environment, TASK.properties),
        Task(TASK.name, TASK.label, TASK.script, {}, TASK.properties),
        Task(TASK.name, TASK.label, TASK.script, TASK.environment, {}),
    ],
)
def test_a_task_of_the_same_name_with_other_work_is_stopped_and_replaced(
    systemd: Systemd, other: Task
) -> None:
    systemd.shows("running", description(other))
    assert [call[1] for call in systemd.calls(TASK)[:2]] == ["stop", "reset-failed"]
    assert systemd.calls(TASK)[-1] == LAUNCHED


def test_nothing_but_the_label_leaves_the_digest_as_it_is() -> None:
    assert (
        Task(TASK.name, "other words", TASK.script, TASK.environment, TASK.properties).digest == TASK.digest
    )
