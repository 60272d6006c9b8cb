"""A reboot is over when the host answers with another boot id: not while the old sshd still answers."""

from collections.abc import Iterator
from typing import Any

import pytest
from pyinfra.api.exceptions import ConnectError

from ops import reboot
from ops.remote import Answer

OLD, NEW = "one", "two"


class Rebooting:
    """A host whose answers to `cat boot_id` are given; None: it does not answer."""

    name, print_prefix = "gpu-1", "[gpu-1] "

    def __init__(self, answers: list[str | None]) -> None:
        self.answers: Iterator[str | None] = iter(answers)
        self.connector_data: dict[str, Any] = {}
        self.connected = True
        self.asked: list[str] = []
        self.host = self

    def disconnect(self) -> None:
        self.connected = False

    def connect(self, **_: object) -> None:
        self.connected = True

    def run(self, script: str) -> Answer:
        self.asked.append(script)
        if script == "stop what runs":
            return Answer(False, "train.py (pid 7) uses the GPUs")
        if script != reboot.BOOT_ID:
            return Answer(script != "false", "")
        answer = next(self.answers)
        if answer is None:
            raise ConnectError("refused")
        return Answer(True, answer)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reboot, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(reboot, "Remote", lambda host, _: host)


def rebooted(host: Rebooting, before: str = "true", only_if: str = "true") -> bool:
    return reboot._reboot(None, host, "reboot", before, only_if, {})  # type: ignore[arg-type]


def test_the_host_is_back_when_its_boot_id_is_another() -> None:
    host = Rebooting([OLD, OLD, None, None, NEW])
    assert rebooted(host)
    assert host.asked.count(reboot.BOOT_ID) == 5


def test_a_host_that_stays_away_fails_alone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reboot, "MOST_SECONDS", 0.05)
    assert not rebooted(Rebooting([OLD, *[OLD] * 10**6]))


def test_what_must_not_be_cut_keeps_the_host_from_its_reboot() -> None:
    host = Rebooting([OLD])
    assert not rebooted(host, before="stop what runs")
    assert not [script for script in host.asked if "systemctl reboot" in script]


def test_a_host_that_needs_none_after_all_goes_on() -> None:
    host = Rebooting([])
    assert rebooted(host, only_if="false")
    assert host.asked == ["false"]


def test_the_machine_that_the_run_comes_from_is_not_rebooted() -> None:
    host = Rebooting([OLD])
    host.name = "@local"
    assert not rebooted(host)
    assert host.asked == ["true"]
