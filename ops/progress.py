"""What long work says while it is waited for: one live table over the fleet, lines without a terminal.

Everything that `ops.waiting` waits for takes part, from its first moment. A line such as "42% of 3.00 GiB,
11.2 MiB/s, 30 s left" moves a bar, and so does "loading the weights, 25%"; any other is shown as it is.
"""

import logging
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from pyinfra import logger
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ops.remote import Remote

MEASURED = re.compile(
    r"(?P<percent>\d+)% of (?P<total>\S+ \w+)(, (?P<rate>\S+ \w+/s))?(, (?P<left>.+) left)?"
)
# Without a terminal a measured line every two seconds from every host would bury the rest.
LINE_SECONDS = 15.0
STAGE = re.compile(r"(?P<words>.+), (?P<percent>\d+)%")
# Many hosts have news at once; the eye wants no more than this.
DRAWN_SECONDS = 0.25


class Meter:
    """Counts bytes of a known total, and says how far, how fast and how long still."""

    def __init__(self, total: int) -> None:
        self._total, self._there, self._moved, self._began = total, 0, 0, time.monotonic()

    def skip(self, count: int) -> None:
        """Bytes that were there already."""
        self._there += count

    def add(self, count: int) -> None:
        """Bytes that have moved now."""
        self._there += count
        self._moved += count

    @property
    def text(self) -> str:
        """As one measured line."""
        rate = self._moved / max(time.monotonic() - self._began, 0.001)
        left = (
            f", {(self._total - self._there) / rate:.0f} s left" if rate and self._total > self._there else ""
        )
        percent = 100 * self._there // self._total if self._total else 100
        return f"{percent}% of {self._total / 2**30:.2f} GiB, {rate / 2**20:.1f} MiB/s{left}"


@dataclass
class Row:
    """One task of one host: its newest line and when it began."""

    line: str
    began: float
    told: float | None = None


class Board:
    """The rows of all hosts; on a terminal they are one table that is drawn anew as they change."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._live: Live | None = None
        self._drawn = 0.0
        self.rows: dict[tuple[str, str], Row] = {}

    def begun(self, host: str, label: str) -> None:
        """A task is waited for from now on, which is worth a row but no line."""
        self.rows.setdefault((host, label), Row("at work", self._clock()))
        self.goes_on()

    def goes_on(self) -> None:
        """Time has passed: on a terminal it is seen to."""
        if self._console.is_terminal and self.rows:
            self._draw()

    def tell(self, host: str, label: str, line: str, log: Callable[[str], None]) -> None:
        """A task's newest line; `log` prints one where there is no terminal."""
        now = self._clock()
        row = self.rows.setdefault((host, label), Row(line, now))
        row.line = line
        if self._console.is_terminal:
            self._draw()
        elif not _measured(line) or row.told is None or now - row.told >= LINE_SECONDS:
            row.told = now
            log(f"{line} ({now - row.began:.0f} s)")

    def ended(self, host: str, label: str) -> None:
        """A task is not waited for any more; the table goes with the last one."""
        self.rows.pop((host, label), None)
        if self._live and not self.rows:
            self.hide()
        elif self._live:
            self._draw(at_once=True)

    def hide(self) -> None:
        """Makes way for a line of somebody else's; the next word of a task draws the table again below it."""
        if self._live:
            self._live.stop()
            self._live = None

    def _draw(self, at_once: bool = False) -> None:
        now = self._clock()
        if not at_once and self._live and now - self._drawn < DRAWN_SECONDS:
            return
        self._drawn = now
        if self._live is None:
            # what pyinfra prints goes past the streams that rich could redirect
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """One row a task: host, work, bar, rate, what is left; or its own words."""
        table = Table.grid(padding=(0, 2))
        for (host, label), row in sorted(self.rows.items()):
            seconds = f"{self._clock() - row.began:.0f} s"
            measured = _measured(row.line)
            if measured is None:
                table.add_row(host, label, "", row.line[:60], "", seconds)
                continue
            share = ProgressBar(total=100, completed=int(measured["percent"]), width=24)
            percent = f"{measured['percent']:>3}%"
            if "total" in measured:
                rest = f"{measured['left']} left" if measured["left"] else seconds
                words = f"{percent} of {measured['total']}"
                table.add_row(host, label, share, words, measured["rate"] or "", rest)
            else:
                table.add_row(host, label, share, f"{percent} {measured['words']}", "", seconds)
        return table


def _measured(line: str) -> dict[str, str] | None:
    """The parts of a line that says how far it is; None for any other."""
    found = MEASURED.fullmatch(line) or STAGE.fullmatch(line)
    return found.groupdict() if found else None


_board = Board(Console(file=sys.stderr))


def _make_way(_: logging.LogRecord) -> bool:
    _board.hide()
    return True


logger.addFilter(_make_way)


def begun(remote: Remote, label: str) -> None:
    """A host's task is waited for."""
    _board.begun(remote.host.name, label)


def goes_on() -> None:
    """Nothing new from any task."""
    _board.goes_on()


def tell(remote: Remote, label: str, line: str) -> None:
    """A line of a host's task."""
    _board.tell(remote.host.name, label, line, lambda text: _say(remote, label, text))


def ended(remote: Remote, label: str) -> None:
    """A host's task is over, or not waited for any more."""
    _board.ended(remote.host.name, label)


def failed(remote: Remote, label: str, text: str) -> None:
    """A task's last words, as an error."""
    ended(remote, label)
    logger.error(f"{remote.host.print_prefix}{label}: {text}")


def _say(remote: Remote, label: str, text: str) -> None:
    logger.info(f"{remote.host.print_prefix}{label}: {text}")
