"""Whole deploys without a host: `deploy.py` run by pyinfra itself against its @fake connector.

Each host answers the probe with a captured text and everything else with success, unless a test says
otherwise. What would have been executed is recorded as the connector would have sent it: the whole shell
command, and what stands on its standard input.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.roles import commits, forked


@dataclass(frozen=True)
class Answer:
    """What a host says to every command that `pattern` is found in; `then`: from the second time on."""

    pattern: str
    text: str = ""
    ok: bool = True
    then: str | None = None


@dataclass(frozen=True)
class FakeHost:
    """A host of the inventory: its data, its probe's text, and its answers, the first that matches wins."""

    name: str
    probe: str
    data: Mapping[str, Any] = field(default_factory=dict)
    answers: Sequence[Answer] = ()


# How a host answers where all goes well: a task has ended, a service serves.
WELL = (Answer(r"SubState bringup-\S+; *echo|state=\$\(systemctl show --value -p SubState", "exited"),)
SERVES = (Answer(r"-p ActiveState", "active 0 none"),)


@dataclass(frozen=True)
class Exec:
    """One round trip: the command of the operation, as the connector would send it, its standard input."""

    command: str
    sent: str
    stdin: str = ""

    def script(self) -> str:
        """What the shell of a task gets when this starts one: systemd makes one dollar of two."""
        words = shlex.split(self.command)
        return words[words.index("-euc") + 1].removesuffix(";").replace("$$", "$")

    def files(self) -> dict[str, str]:
        """Path -> content of the files that this command puts in place."""
        targets = dict(re.findall(r"install -D .*? -- (\d+) '*([^' ]+?)\.new", self.command))
        if not targets:
            return {}
        lines = self.stdin.split("\n")
        return {path: base64.b64decode(lines[int(number)]).decode() for number, path in targets.items()}


@dataclass(frozen=True)
class Run:
    """A finished deploy: pyinfra's exit code, what it said, and every round trip by host."""

    code: int
    output: str
    execs: Mapping[str, list[Exec]]

    def kinds(self, host: str) -> list[str]:
        """The round trips of a host in a word or two each, in order."""
        return [kind(trip) for trip in self.execs.get(host, [])]

    def files(self, host: str) -> dict[str, str]:
        """Path -> content of everything written to a host."""
        return {path: text for trip in self.execs.get(host, []) for path, text in trip.files().items()}


# The first pattern that is found names the round trip; its group says what it is about.
KINDS = (
    (r"@@%s", "probe"),
    (r"^journalctl .*?([a-z0-9-]+\.service)", "journal"),
    (r"echo restored", "put back"),
    (r"systemd-run .*--unit=bringup-([a-z0-9.-]+)\.service", "start"),
    (r"state=\$\(systemctl show --value -p SubState bringup-([a-z0-9.-]+)\.service", "join"),
    (r"sort -u >/etc/bringup/state.new", "stamp"),
    (r"for unit in (\S+); do if .* = exited", "clear"),
    (r"install -D ", "write"),
    (r"install -d .* (/\S+)", "directories"),
    (r"useradd .* (\S+)", "useradd"),
    (r"userdel (\S+)", "userdel"),
    (r"openssl req ", "certificate"),
    (r"^cat \S+certificate", "fingerprint"),
    (r"systemctl reload (\S+)", "reload"),
    (r"systemctl --quiet disable --now (\S+);", "disable"),
    (r"rm -rf -- (\S+)", "remove"),
    (r"systemctl --no-block (restart|start) ", "service"),
    (r"ActiveState", "look"),
)


def kind(trip: Exec) -> str:
    """A round trip in a word or two."""
    for pattern, word in KINDS:
        if found := re.search(pattern, trip.command, re.DOTALL):
            about = " ".join(trip.files()) if word == "write" else " ".join(found.groups())
            return f"{word} {about}".strip().rstrip("'")
    return trip.command


def deploy(
    *hosts: FakeHost,
    data: Mapping[str, Any] | None = None,
    options: Sequence[str] = ("-y",),
    lock: str | None = None,
    **environment: str,
) -> Run:
    """Runs `pyinfra INVENTORY deploy.py` as an operator does.

    Args:
        hosts: the inventory.
        data: group data of `all`.
        options: pyinfra's own options.
        lock: the text of the lock beside the inventory.
        environment: variables of the operator's machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "group_data").mkdir()
        (scratch / "group_data" / "all.py").write_text(
            "".join(
                f"{name} = {value!r}\n"
                for name, value in ({"sources": {"models": commits.url()}} | dict(data or {})).items()
            )
        )
        (scratch / "fleet.py").write_text(
            f"fleet = {[(f'@fake/{host.name}', dict(host.data)) for host in hosts]!r}\n"
        )
        if lock is not None:
            (scratch / "fleet.lock").write_text(lock)
        (scratch / "hosts.json").write_text(
            json.dumps({f"@fake/{host.name}": asdict(host) for host in hosts})
        )
        code, output = forked.run(
            [folder, *options, str(scratch / "fleet.py"), "deploy.py"],
            os.environ | {"COLUMNS": "200", "BRINGUP_RUNS": folder} | environment,
            timeout_seconds=300,
        )
        lines = (
            (scratch / "execs.jsonl").read_text().splitlines() if (scratch / "execs.jsonl").exists() else []
        )
    execs: dict[str, list[Exec]] = {}
    for host, *trip in map(json.loads, lines):
        execs.setdefault(host.removeprefix("@fake/"), []).append(Exec(*trip))
    return Run(code, output, execs)


def _record(folder: Path) -> None:
    """Makes the @fake connector write down what it is given, and answer as the test wants."""
    from pyinfra.api.command import StringCommand
    from pyinfra.connectors.fake import FakeConnector
    from pyinfra.connectors.util import CommandOutput, OutputLine, make_unix_command_for_host

    hosts = json.loads((folder / "hosts.json").read_text())
    asked: set[tuple[str, str]] = set()

    def run_shell_command(
        self: Any, command: Any, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        command = StringCommand(command)
        text = command.get_raw_value()
        stdin = "\n".join(arguments.pop("_stdin", None) or [])
        for name in ("_success_exit_codes", "_timeout", "_get_pty"):
            arguments.pop(name, None)
        sent = make_unix_command_for_host(self.state, self.host, command, **arguments)
        with (folder / "execs.jsonl").open("a") as log:
            log.write(json.dumps([self.host.name, text, sent.get_raw_value(), stdin]) + "\n")
        host = hosts[self.host.name]
        answers = [Answer("@@%s", host["probe"]), *(Answer(**answer) for answer in host["answers"])]
        for answer in (*answers, *WELL, *SERVES):
            if re.search(answer.pattern, text):
                before = (self.host.name, answer.pattern) in asked
                asked.add((self.host.name, answer.pattern))
                said = answer.then if before and answer.then is not None else answer.text
                lines = [OutputLine("stdout", line) for line in said.splitlines()]
                return answer.ok, CommandOutput(lines)
        return True, CommandOutput([])

    FakeConnector.run_shell_command = run_shell_command  # type: ignore[method-assign]


def child(arguments: Sequence[str]) -> None:
    """pyinfra's command on a prepared folder, which is the first argument."""
    from pyinfra_cli.main import main  # type: ignore[import-untyped]

    _record(Path(arguments[0]))
    sys.argv = ["pyinfra", *arguments[1:]]
    main()
