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
from rich.text import Text

from ops.remote import Remote

MEASURED = re.compile(
    r"(?P<percent>\d+)% of (?P<total>\S+ \w+)(, (?P<rate>\S+ \w+/s))?(, (?P<left>.+) left)?"
)
# Without a terminal a line every two seconds from every host would bury the rest.
LINE_SECONDS, WORDS_SECONDS = 15.0, 5.0
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
STAGE = re.compile(r"(?P<words>.+), (?P<percent>\d+)%")
# Many hosts have news at once; the eye wants no more than this.
DRAWN_SECONDS = 0.25
# A screen on which long bars leave room for words.
WIDE = 110


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
        line = " ".join(_CONTROLS.sub("", line).split())
        row = self.rows.setdefault((host, label), Row(line, now))
        row.line = line
        if self._console.is_terminal:
            self._draw()
            return
        pause = LINE_SECONDS if _measured(line) else WORDS_SECONDS
        if row.told is None or now - row.told >= pause:
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
        """One row a task, each of one line: host, since when, what it does, a bar where the percent is known.

        What does not fit on the screen is counted, and what does not fit on the line is cut.
        """
        rows = sorted(self.rows.items())
        # the line above it, and the one on which the cursor stands
        most = max(self._console.height - 2, 2)
        shown = rows if len(rows) <= most else rows[: most - 1]
        measured = [_measured(row.line) for _, row in shown]
        wide = self._console.width >= WIDE
        widths = [
            max(min(max(len(host) for (host, _), _ in rows), 40 if wide else 20), 3),
            7,
            0,
            (24 if wide else 12) if any(measured) else 0,
        ]
        widths[2] = max(self._console.width - sum(widths) - 2 * len(widths), 10)
        table = Table.grid(padding=(0, 2))
        for width in widths:
            table.add_column(width=width, no_wrap=True, overflow="ellipsis")
        for ((host, label), row), found in zip(shown, measured, strict=True):
            seconds = Text(f"{self._clock() - row.began:.0f} s", justify="right")
            bar = ProgressBar(100, int(found["percent"]), widths[3]) if found else ""
            # what hosts say is no markup
            table.add_row(Text(host), seconds, Text(_words(label, row.line, found)), bar)
        if hidden := [label for (_, label), _ in rows[len(shown) :]]:
            more = f"and {len(hidden)} more: {', '.join(dict.fromkeys(hidden))}"
            table.add_row("", "", Text(more), "")
        return table


def _words(label: str, line: str, measured: dict[str, str] | None) -> str:
    """A task's words: first its numbers, where there are some, since the end of a line may be cut."""
    if measured is None:
        return f"{label}: {line}"
    far = line if "total" in measured else f"{measured['percent']}% {measured['words']}"
    return f"{far} · {label}"


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
