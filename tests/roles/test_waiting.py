"""Waiting shows what is new, heeds the judge, and says what to do when the connection breaks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from ops import progress, waiting
from ops.remote import Remote

LABEL = "installing torch"


@dataclass
class Connection:
    """What pyinfra's host is to `Remote`: it runs commands, one prepared answer each."""

    answers: Iterator[str | Exception]
    name: str = "gpu-1"
    print_prefix: str = "[gpu-1] "
    ran: list[str] = field(default_factory=list)

    def run_shell_command(self, command: object, **_: object) -> tuple[bool, object]:
        self.ran.append(str(command))
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return True, type("Output", (), {"stdout": answer})


def wait(*answers: str | Exception) -> tuple[bool, Connection]:
    """Waits for "done" or "failed"; everything else is news."""
    connection = Connection(iter(answers))
    remote = Remote(connection, {})  # type: ignore[arg-type]

    def judge(text: str, waited: float) -> bool | None:
        return {"done": True, "failed": False}.get(text)

    return waiting.wait(remote, LABEL, "look", judge, news=lambda text: text), connection


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "WORDS_SECONDS", 0.0)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="pyinfra")
    return caplog


def test_it_looks_until_the_judge_decides() -> None:
    good, connection = wait("a", "b", "done", "never asked")
    assert good
    assert len(connection.ran) == 3
    bad, _ = wait("a", "failed")
    assert not bad


def test_a_line_is_shown_when_it_is_new_and_not_again(said: pytest.LogCaptureFixture) -> None:
    wait("1 of 2", "1 of 2", "2 of 2", "", "done")
    shown = [record.getMessage() for record in said.records]
    assert [line.partition(": ")[2].split(" (")[0] for line in shown] == ["1 of 2", "2 of 2"]
    assert all(line.startswith(f"[gpu-1] {LABEL}: ") for line in shown)


@pytest.mark.parametrize("broken", [ConnectionResetError("reset by peer"), EOFError()])
def test_a_broken_connection_fails_this_host_and_says_that_the_work_goes_on(
    broken: Exception, said: pytest.LogCaptureFixture
) -> None:
    good, _ = wait("a", broken)
    assert not good
    assert said.messages[-2:] == [
        f"[gpu-1] {LABEL}: the connection broke ({str(broken) or 'EOFError'}).",
        f"[gpu-1] {LABEL}: the work goes on on the host; run again to join it.",
    ]


def test_a_defect_is_not_taken_for_a_broken_connection() -> None:
    with pytest.raises(ValueError):
        wait("a", ValueError())
