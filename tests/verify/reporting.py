"""The run as a report: every check in words, who has moved; an exit code that tells failed from unseen."""

import re
import time
from collections.abc import Generator, Iterator
from datetime import datetime

import pytest
from pyinfra.api.host import Host

from ops import report_files
from ops.version import version
from plan.drift import Difference
from plan.report import Check, Figure, HostReport, Problem, Report, described
from tests.verify.cases import Case
from tests.verify.fleet import Subject

SUBJECTS = pytest.StashKey[list[Subject]]()
FIGURES = pytest.StashKey[list[Figure]]()
COULD_NOT_CHECK = 2
# The check that tells of a host of which nothing is known.
REACHED = "host is reached and has a plan"
FIX = "Deploy again, and look at the host where that does not mend it."


def case_of(item: pytest.Item) -> Case | None:
    """What a check is about; None for a test that is none of ours."""
    parameters = getattr(item, "callspec", None)
    case = parameters.params.get("case") if parameters else None
    return case if isinstance(case, Case) else None


def sentence(item: pytest.Item, case: Case) -> str:
    """A check's name as a sentence: "service answers a chat (chat Qwen on 8000)"."""
    words = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
    about = case.name.removeprefix(case.subject.name).strip()
    return f"{words} ({about})" if about else words


class Reporting:
    """One run of the checks, kept until its end."""

    def __init__(self, inventory: str, hosts: list[Host]) -> None:
        self.inventory = inventory
        self.names = [host.name for host in hosts]
        self.began, self.started = time.monotonic(), datetime.now().astimezone()
        self.subjects: dict[str, Subject] = {}
        self.checks: dict[str, list[Check]] = {}
        self.problems: dict[str, list[Problem]] = {}
        self.figures: dict[str, list[Figure]] = {}
        self.unchecked: list[str] = []
        self.exit_code = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        case = case_of(item)
        if case is not None and (report.when == "call" or report.outcome != "passed"):
            self._keep(item, case, call, report)
        return report

    def _keep(
        self, item: pytest.Item, case: Case, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> None:
        name, subject = sentence(item, case), case.subject
        self.subjects[subject.name] = subject
        # JUnit takes those of the item, when that is torn down
        item.user_properties.append(("check", f"{subject.name}: {name}"))
        cause = _message(call)
        self.checks.setdefault(subject.name, []).append(Check(name, report.outcome, cause.partition("\n")[0]))
        measured: list[Figure] = item.stash.get(FIGURES, [])
        self.figures.setdefault(subject.name, []).extend(measured)
        if report.outcome != "failed":
            return
        moved = [difference for difference in subject.differences if _names(cause, difference.about)]
        if moved:
            report.sections.append(("who has moved", "\n".join(map(_told, moved))))
        # what several checks stumble over is told with the first of them
        fresh = [difference for difference in moved if difference.about not in subject.told]
        subject.told |= {difference.about for difference in moved}
        problems = [Problem(difference.sentence, difference.diff, name) for difference in fresh]
        self.problems.setdefault(subject.name, []).extend(problems if moved else _problems(cause, name))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """0: all is as planned; 1: something is not; 2: nothing known to be wrong, but not all was seen."""
        self.exit_code = int(exitstatus)
        if session.config.option.collectonly:
            return
        self._tell_unchecked(session.config.stash.get(SUBJECTS, []))
        failed = [subject for name, subject in self.subjects.items() if self.problems.get(name)]
        code = pytest.ExitCode
        if failed and exitstatus in (code.OK, code.TESTS_FAILED, code.NO_TESTS_COLLECTED):
            self.exit_code = COULD_NOT_CHECK if all(map(_unseen, failed)) else code.TESTS_FAILED
        elif exitstatus in (code.NO_TESTS_COLLECTED, code.INTERNAL_ERROR):
            self.exit_code = COULD_NOT_CHECK
        session.exitstatus = self.exit_code

    def _tell_unchecked(self, subjects: list[Subject]) -> None:
        """Hosts of which nothing is known, where `-k` or a file's name left out the check that tells so."""
        for subject in subjects:
            words = subject.problem or subject.lost
            if words and REACHED not in {check.name for check in self.checks.get(subject.name, [])}:
                self.subjects[subject.name] = subject
                self.problems.setdefault(subject.name, []).extend(_problems(words, REACHED))
                self.unchecked.append(words)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.unchecked:
            terminalreporter.section("hosts that were not checked")
            for words in self.unchecked:
                terminalreporter.write_line(words)
        if not self.subjects:
            return
        try:
            page = report_files.write(self.report(self.exit_code))
        except OSError as error:
            terminalreporter.write_line(f"The report could not be written: {error}.")
        else:
            terminalreporter.write_line(f"Report: {page}")

    def report(self, exit_code: int) -> Report:
        """The run so far."""
        return Report(
            kind="verify",
            version=version(),
            started=self.started.isoformat(timespec="seconds"),
            seconds=time.monotonic() - self.began,
            inventory=self.inventory,
            hosts=tuple(self._host(self.subjects[name]) for name in self.names if name in self.subjects),
            exit_code=exit_code,
        )

    def _host(self, subject: Subject) -> HostReport:
        problems = self.problems.get(subject.name, [])
        planned = subject.planned
        outcome = "proved" if not problems else "unreachable" if _unseen(subject) else "failed"
        if outcome == "failed" and planned is None:
            outcome = "refused"
        return HostReport(
            name=subject.name,
            outcome=outcome,
            problems=tuple(dict.fromkeys(problems)),
            checks=tuple(self.checks.get(subject.name, [])),
            figures=tuple(self.figures.get(subject.name, [])),
            **described(planned.plan if planned else None, planned.probe if planned else None),
        )


def _unseen(subject: Subject) -> bool:
    return subject.unreached or bool(subject.lost)


def _names(cause: str, about: str) -> bool:
    """Whether these words name this path, unit or package itself, not one whose name holds this one's."""
    return re.search(rf"(?<![\w/.-]){re.escape(about)}(?![\w/-])", cause) is not None


def _problems(cause: str, check: str) -> Iterator[Problem]:
    """A sentence per paragraph, with its detail in the lines below; a bare fact gets the fix of most."""
    for paragraph in cause.split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        fact = first or f"{check}: failed"
        yield Problem(fact if fact.endswith(".") else f"{fact}. {FIX}", rest, check)


def _told(difference: Difference) -> str:
    return f"{difference.mover}: {difference.sentence}\n{difference.diff}".strip()


def _message(call: pytest.CallInfo[None]) -> str:
    """What a check said when it failed or was left out, without pytest's own explanation of an assertion."""
    if call.excinfo is None:
        return ""
    error = call.excinfo.value
    text = str(getattr(error, "msg", None) or error)
    return text.partition("\nassert ")[0].strip()
