"""Progress is one table over the fleet on a terminal, and few lines without one."""

import io
import itertools

import pytest
from pyinfra import logger
from rich.console import Console

from ops import progress
from ops.progress import MEASURED, Board, Meter

LINE = "42% of 3.00 GiB, 11.2 MiB/s, 158 s left"


def board(terminal: bool) -> tuple[Board, io.StringIO]:
    """A board whose clock goes on by a second with every look at it, and what stands on its screen."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=110, _environ={})
    return Board(console, clock=map(float, itertools.count(1000)).__next__), screen


def test_the_table_has_a_row_for_every_task_of_every_host_and_goes_with_the_last() -> None:
    shown, screen = board(terminal=True)
    shown.tell("gpu-1", "model Qwen/a", LINE, pytest.fail)
    shown.tell("gpu-2", "installing torch", "Resolved 80 packages", pytest.fail)
    text = screen.getvalue()
    for word in (
        "gpu-1",
        "model Qwen/a",
        "42% of 3.00 GiB",
        "11.2 MiB/s",
        "158 s left",
        "gpu-2",
        "Resolved 80",
    ):
        assert word in text
    shown.ended("gpu-1", "model Qwen/a")
    assert set(shown.rows) == {("gpu-2", "installing torch")}
    shown.ended("gpu-2", "installing torch")
    assert shown.rows == {}


@pytest.mark.parametrize("width", [80, 160])
def test_a_task_has_one_line_whatever_its_host_says_and_no_more_tasks_are_shown_than_fit(width: int) -> None:
    screen = io.StringIO()
    shown = Board(Console(file=screen, force_terminal=True, width=width, height=12, _environ={}))
    said = (
        "Unpacking [/usr/lib] \x1b[31mlibicu72:amd64\x1b[0m (72.1-3+deb12u1) over all that was there before "
        * 3
    )
    for number in range(40):
        host = f"gpu-{number:02}.a-long-name-of-a-rack.in-a-long-name-of-a-room"
        shown.tell(host, "installing what hosts exchange models with", said, pytest.fail)
    shown.tell("gpu-00", "model", "7% of 3.00 GiB, 11.2 MiB/s, 158 s left", pytest.fail)
    console = Console(width=width, _environ={})
    with console.capture() as seen:
        console.print(shown.table())
    lines = seen.get().splitlines()
    assert len(lines) == 10
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("gpu-00 ") and "7% of 3.00 GiB, 11.2 MiB/s" in lines[0]
    assert "Unpacking [/usr/lib] libicu72" in lines[1] or width == 80
    assert lines[-1].strip().startswith("and 32 more: installing what")


def test_the_table_makes_way_for_a_line_of_the_log_and_comes_back_below_it() -> None:
    shown, screen = board(terminal=True)
    shown.tell("gpu-1", "model", LINE, pytest.fail)
    shown.hide()
    screen.write("    [gpu-2] Success\n")
    shown.tell("gpu-1", "model", LINE, pytest.fail)
    before, _, after = screen.getvalue().partition("    [gpu-2] Success\n")
    assert "gpu-1" in before and before.endswith("\x1b[2K")  # its line is erased
    assert "gpu-1" in after


def test_pyinfras_own_lines_are_never_drawn_into_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, screen = board(terminal=True)
    monkeypatch.setattr(progress, "_board", shown)
    shown.tell("gpu-1", "model", LINE, pytest.fail)
    logger.warning("    [gpu-2] Success")
    assert screen.getvalue().endswith("\x1b[2K")


def test_without_a_terminal_lines_are_few() -> None:
    shown, screen = board(terminal=False)
    told: list[str] = []
    for percent in range(30):
        shown.tell("gpu-1", "model", f"{percent}% of 3.00 GiB, 1.0 MiB/s", told.append)
    assert [line.partition("%")[0] for line in told] == ["0", "15"]
    for number in range(12):
        shown.tell("gpu-1", "installing", f"Unpacking {number}", told.append)
    assert [line.partition(" (")[0] for line in told[2:]] == ["Unpacking 0", "Unpacking 5", "Unpacking 10"]
    assert screen.getvalue() == ""


def test_a_meter_counts_what_moved_and_tells_it_in_the_words_that_the_table_reads() -> None:
    meter = Meter(4 << 30)
    meter.skip(1 << 30)
    meter.add(1 << 30)
    read = MEASURED.fullmatch(meter.text)
    assert read and read["percent"] == "50" and read["total"] == "4.00 GiB"
    assert read["rate"] and read["left"]
    assert MEASURED.fullmatch("100% of 4.00 GiB, 3.1 MiB/s")
    assert not MEASURED.fullmatch("Downloading 42% of it")


def test_a_row_is_there_from_the_first_moment_and_a_stage_moves_its_bar() -> None:
    shown, screen = board(terminal=True)
    shown.begun("gpu-1", "service chat")
    assert "gpu-1" in screen.getvalue() and "at work" in screen.getvalue()
    shown.tell("gpu-1", "service chat", "loading the weights, 25%", pytest.fail)
    shown.ended("gpu-2", "nothing")
    assert "25% loading the weights" in screen.getvalue()
    shown.ended("gpu-1", "service chat")


def test_without_a_terminal_a_beginning_is_no_line() -> None:
    shown, screen = board(terminal=False)
    shown.begun("gpu-1", "service chat")
    shown.goes_on()
    assert screen.getvalue() == ""
