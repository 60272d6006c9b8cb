"""`python -m plan bundle`: a directory with everything that a lock names, for a network without a way out."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from plan import bundle, bundle_addresses, bundle_fetch, bundle_made, lock, settings
from plan.bundle import KINDS, File
from plan.bundle_addresses import Found
from plan.bundle_fetch import Heard
from plan.errors import PlanError
from plan.settings import Settings

REFUSED = 1
ROOT = Path(__file__).parents[1]
# Says what the hosts of an inventory have been given as settings, without asking the hosts.
SETTINGS_PROGRAM = "ops.inventory"
_SECONDS_BETWEEN_LINES = 10


def collect(options: argparse.Namespace) -> int:
    """Collects what a lock names, checked, into a directory. 1 when something cannot be had."""
    path, root = Path(options.lock), Path(options.folder)
    held = lock.read(path)
    kinds = options.only or list(KINDS)
    found = bundle_addresses.find(held, _settings(path), kinds)
    known = bundle_fetch.sizes(found)
    print("\n".join(_sizes(found, known)))
    for sentence in bundle.unlisted(held):
        print(f"bundle: {sentence}", file=sys.stderr)
    if options.sizes:
        return 0
    _writable_or_refuse(root)
    # where there are no links, what lies there under two names takes its room twice
    room = sum(size or 0 for size in known.values())
    bundle_fetch.free_or_refuse(root, room - _there(root, known))
    with _progress(sum(known[file.path] or 0 for file in _once(found))) as heard:
        hashes, problems = bundle_fetch.fetch(found, root, heard)
    hashes |= bundle_fetch.written(root, bundle_made.texts(held, root, hashes))
    hashes = _with_before(root, hashes, found)
    bundle_fetch.written(root, {bundle.INDEX: bundle.render(hashes)})
    for problem in problems:
        print(f"bundle: {problem}", file=sys.stderr)
    lacking = f", {len(problems)} files are missing" if problems else ""
    print(f"{root}: {len(hashes)} files, all verified{lacking}. Index: {bundle.INDEX}")
    return REFUSED if problems else 0


def _writable_or_refuse(root: Path) -> None:
    """Makes the directory.

    Raises:
        PlanError: nothing can be written there.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        # a stick that was mounted read-only is a directory too
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        raise PlanError([f"bundle: {root}: {error.strerror}. Name a directory to write to."]) from None


def _settings(path: Path) -> dict[str, Settings]:
    """Host -> settings of the inventory that the lock lies beside; none where there is no inventory."""
    inventory = path.with_suffix(".py")
    if not inventory.is_file():
        return {}
    done = subprocess.run(
        [sys.executable, "-m", SETTINGS_PROGRAM, str(inventory.resolve())],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PlanError([f"{inventory}: cannot be read: {(done.stderr.strip().splitlines() or ['?'])[-1]}"])
    return {name: settings.read([data]) for name, data in json.loads(done.stdout).items()}


def _sizes(found: Iterable[Found], known: Mapping[str, int | None]) -> Iterator[str]:
    """A line per kind, and the whole."""
    once = _once(found)
    for kind in KINDS:
        files = [file for file in once if file.kind == kind]
        if files:
            yield _size_line(kind, [known[file.path] for file in files])
    yield _size_line("together", [known[file.path] for file in once])


def _once(found: Iterable[Found]) -> list[File]:
    """The files, each content once: what lies there under two names comes once."""
    return list({one.file.sha256 or one.file.path: one.file for one in found}.values())


def _size_line(name: str, sizes: list[int | None]) -> str:
    unknown = sizes.count(None)
    more = f", and {unknown} of unknown size" if unknown else ""
    return f"{name:<14}{len(sizes):>6} files {_amount(sum(size or 0 for size in sizes)):>12}{more}"


def _amount(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB" if size >= 1024**3 else f"{size / 1024**2:.1f} MiB"


def _there(root: Path, known: Mapping[str, int | None]) -> int:
    """Bytes of these that the directory has already, whole or begun."""
    paths = [root / f"{path}{begun}" for path in known for begun in ("", ".part")]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _with_before(root: Path, hashes: dict[str, str], found: Iterable[Found]) -> dict[str, str]:
    """The index with what an earlier run of other kinds brought; what was asked for now counts as now."""
    asked = {one.file.path for one in found}
    try:
        before = bundle.parse((root / bundle.INDEX).read_text())
    except OSError:
        return hashes
    kept = {path: digest for path, digest in before.items() if path not in asked and (root / path).is_file()}
    return kept | hashes


@contextmanager
def _progress(total: int) -> Iterator[Heard]:
    """A bar on a terminal; elsewhere a line every few seconds."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("fetching"), BarColumn(), DownloadColumn(binary_units=True), SpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task("", total=total)
            yield lambda size: bar.advance(task, size)
        return
    come, said = 0, time.monotonic()

    def heard(size: int) -> None:
        nonlocal come, said
        come += size
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"{_amount(come)} of {_amount(total)}", file=sys.stderr, flush=True)

    yield heard
