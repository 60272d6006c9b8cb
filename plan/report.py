"""What one run did or found, as data: the report's JSON, and what its page is made from."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from plan import show
from plan.host import HostPlan
from plan.probe import Probe

# Of the JSON's shape: raised when a name changes its meaning or goes.
FORMAT = 1
Kind = Literal["deploy", "verify"]
# Worst first, as the page shows them. A deploy ends changed or unchanged, a verify proved.
OUTCOMES = ("failed", "refused", "unreachable", "changed", "unchanged", "proved")
BAD = ("failed", "refused", "unreachable")


@dataclass(frozen=True)
class Problem:
    """What is wrong: one sentence, with its fix; `detail` is a diff, or a program's last words."""

    sentence: str
    detail: str = ""
    check: str = ""


@dataclass(frozen=True)
class Step:
    """An operation of a deploy, with its times in seconds since the run began."""

    name: str
    start_seconds: float
    seconds: float
    outcome: Literal["changed", "unchanged", "failed"]


@dataclass(frozen=True)
class Check:
    """A check of a verify. `cause`: why it failed, or was not made."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    cause: str = ""


@dataclass(frozen=True)
class Figure:
    """A number about a service: as planned, as measured, or both, in `unit`."""

    subject: str
    what: str
    unit: str
    predicted: float | None = None
    measured: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a plan: a part, what was planned, and why."""

    part: str
    planned: str
    because: str


@dataclass(frozen=True)
class HostReport:
    """One host.

    Attributes:
        outcome: one of `OUTCOMES`.
        gpus: a name per GPU.
        services: "model on address" of each.
        notes: what the host said in passing: answers, addresses, warnings.
    """

    name: str
    outcome: str
    problems: tuple[Problem, ...] = ()
    system: str = ""
    hardware: str = ""
    gpus: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    plan: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    checks: tuple[Check, ...] = ()
    figures: tuple[Figure, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether somebody has to look at it."""
        return self.outcome in BAD

    @property
    def changes(self) -> int:
        """How many operations changed something."""
        return sum(step.outcome == "changed" for step in self.steps)

    @property
    def eventful(self) -> tuple[Step, ...]:
        """The operations that did something."""
        return tuple(step for step in self.steps if step.outcome != "unchanged")

    @property
    def busy_seconds(self) -> float:
        """How long they took."""
        return sum(step.seconds for step in self.eventful)

    @property
    def passed(self) -> int:
        """How many checks passed."""
        return sum(check.outcome == "passed" for check in self.checks)

    @property
    def skipped(self) -> tuple[Check, ...]:
        """The checks that were not made."""
        return tuple(check for check in self.checks if check.outcome == "skipped")


@dataclass(frozen=True)
class Report:
    """One run over an inventory. `started`: ISO 8601 with its offset; `exit_code` as the program's own."""

    kind: Kind
    version: str
    started: str
    seconds: float
    inventory: str
    hosts: tuple[HostReport, ...]
    exit_code: int = 0
    format: int = field(default=FORMAT)

    def to_json(self) -> str:
        """The stable shape that docs/verify.md describes."""
        whole = asdict(self) | {"counts": self.counts}
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"

    @property
    def counts(self) -> dict[str, int]:
        """Outcome -> hosts, worst first, without those that none had."""
        found = [host.outcome for host in self.hosts]
        return {outcome: found.count(outcome) for outcome in OUTCOMES if outcome in found}

    @property
    def counts_bad(self) -> int:
        """How many hosts somebody has to look at."""
        return sum(host.bad for host in self.hosts)

    @property
    def worst_first(self) -> list[HostReport]:
        """The hosts by outcome, then in the inventory's order."""
        return sorted(self.hosts, key=lambda host: OUTCOMES.index(host.outcome))

    @property
    def troubles(self) -> list[tuple[Problem, list[str]]]:
        """Every problem once, with the hosts that have it, the most frequent first."""
        together: dict[str, tuple[Problem, list[str]]] = {}
        for host in self.worst_first:
            for problem in host.problems:
                sentence = problem.sentence.removeprefix(f"{host.name}: ")
                shown = replace(problem, sentence=sentence)
                names = together.setdefault(sentence.replace(host.name, "*"), (shown, []))[1]
                if host.name not in names:
                    names.append(host.name)
        return sorted(together.values(), key=lambda entry: -len(entry[1]))

    @property
    def gpus(self) -> dict[str, int]:
        """GPU -> how many the fleet has."""
        names = [gpu for host in self.hosts for gpu in host.gpus]
        return {name: names.count(name) for name in sorted(set(names))}


def from_json(text: str) -> Report:
    """A report that `to_json` wrote."""
    raw: dict[str, Any] = json.loads(text)
    raw.pop("counts")
    return Report(**raw | {"hosts": tuple(_host(host) for host in raw["hosts"])})


def _host(raw: dict[str, Any]) -> HostReport:
    parts = {"problems": Problem, "plan": Row, "steps": Step, "checks": Check, "figures": Figure}
    made = {name: tuple(kind(**entry) for entry in raw[name]) for name, kind in parts.items()}
    texts = {name: tuple(raw[name]) for name in ("gpus", "services", "notes")}
    return HostReport(**raw | made | texts)


def described(plan: HostPlan | None, probe: Probe | None) -> dict[str, Any]:
    """The fields of a host's report that follow from its plan and its probe."""
    if probe is None:
        return {}
    fields: dict[str, Any] = {
        "system": f"{probe.os_name}, Linux {probe.kernel}",
        "hardware": f"{probe.cpu_count} CPUs, {probe.memory_gib:.0f} GiB",
    }
    if plan is not None:
        fields |= {
            "gpus": tuple(_gpus(plan)),
            "hardware": fields["hardware"] if not _gpus(plan) else f"{plan.hardware}; {fields['hardware']}",
            "services": tuple(f"{service.served_name} · {service.url}/v1" for service in plan.services),
            "plan": tuple(Row(*row) for row in show.rows(plan)),
            "notes": tuple(plan.warnings),
        }
    return fields


def _gpus(plan: HostPlan) -> list[str]:
    """A name per GPU, from the plan's own words: "2 x NVIDIA L40S"."""
    found: list[str] = []
    for part in plan.hardware.split(", "):
        count, times, name = part.partition(" x ")
        if times and count.isdigit():
            found += [name] * int(count)
    return found


def sentences(lines: Iterable[str]) -> tuple[Problem, ...]:
    """Problems from messages: the first line is the sentence, what follows its detail."""
    found = []
    for line in lines:
        sentence, _, detail = line.partition("\n")
        found.append(Problem(sentence.strip(), detail.rstrip()))
    return tuple(found)
