"""What long work says while it is waited for: one live table over the fleet, lines without a terminal.

Every task whose output is shown by `ops.waiting` takes part. A line such as "42% of 3.00 GiB, 11.2 MiB/s,
30 s left" moves a bar; any other is shown as it is.
"""

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
        self.rows: dict[tuple[str, str], Row] = {}

    def tell(self, host: str, label: str, line: str, log: Callable[[str], None]) -> None:
        """A task's newest line; `log` prints one where there is no terminal."""
        now = self._clock()
        row = self.rows.setdefault((host, label), Row(line, now))
        row.line = line
        if self._console.is_terminal:
            self._draw()
        elif not MEASURED.fullmatch(line) or row.told is None or now - row.told >= LINE_SECONDS:
            row.told = now
            log(f"{line} ({now - row.began:.0f} s)")

    def ended(self, host: str, label: str) -> None:
        """A task is not waited for any more; the table goes with the last one."""
        self.rows.pop((host, label), None)
        if self._live and not self.rows:
            self._live.stop()
            self._live = None
        elif self._live:
            self._draw()

    def _draw(self) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """One row a task: host, work, bar, rate, what is left; or its own words."""
        table = Table.grid(padding=(0, 2))
        for (host, label), row in sorted(self.rows.items()):
            measured = MEASURED.fullmatch(row.line)
            if measured:
                share = ProgressBar(total=100, completed=int(measured["percent"]), width=24)
                words = f"{measured['percent']:>3}% of {measured['total']}"
                rest = f"{measured['left']} left" if measured["left"] else ""
                table.add_row(host, label, share, words, measured["rate"] or "", rest)
            else:
                seconds = f"{self._clock() - row.began:.0f} s"
                table.add_row(host, label, "", row.line[:60], "", seconds)
        return table


_board = Board(Console(file=sys.stderr))


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
