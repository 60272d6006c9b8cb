"""`python -m plan lock` and `python -m plan diff`."""

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from plan import lock, lock_diff, lock_make, lock_models, lock_upgrades, ollama_registry, seen
from plan.errors import PlanError, SettingsError
from plan.lock import Lock
from plan.seen import Seen

REFUSED = 1
ROOT = Path(__file__).parents[1]
LOOK = "roles/host/look.py"
# Tells the deploy file where to leave what it saw.
LOOK_FOLDER = "BRINGUP_LOOK_FOLDER"


def write(options: argparse.Namespace) -> int:
    """Writes the lock of an inventory beside it. 1 when a host has no place in it."""
    inventory = Path(options.inventory)
    if not inventory.is_file():
        raise SettingsError(
            [f"{inventory}: there is no such inventory. Name a file, as inventories/prod.py."]
        )
    path = lock.path_of(inventory)
    old = lock.read(path) if path.exists() else None
    lock_upgrades.check(options.upgrade, old)
    if options.as_of and options.upgrade:
        raise SettingsError(
            ["--as-of: renews every stack as of that day. Leave out --upgrade, or move that afterwards."]
        )
    hosts, complete = _hosts(inventory, options.probes)
    made = lock_make.make(
        hosts,
        old,
        tuple(options.upgrade),
        lock_models.listed,
        ollama_registry.listed,
        complete=complete,
        as_of=options.as_of,
        today=datetime.now(UTC).date().isoformat(),
    )
    for line in (*made.notes, *made.problems):
        print(line, file=sys.stderr)
    if made.lock.hosts:
        _replace(path, lock.render(made.lock, inventory.name))
        print(_summary(path, old, made.lock))
    return REFUSED if made.problems or not complete else 0


def diff(options: argparse.Namespace) -> int:
    """Says what changed between two locks; 1 when anything did, as diff does."""
    lines = list(lock_diff.lines(lock.read(Path(options.old)), lock.read(Path(options.new))))
    print("\n".join(lines) or "The same for every host.")
    return REFUSED if lines else 0


def _hosts(inventory: Path, probes: str | None) -> tuple[list[Seen], bool]:
    """What the hosts are, and whether all of them could be looked at."""
    if probes:
        return seen.load(Path(probes)), True
    pyinfra = Path(sys.executable).with_name("pyinfra")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(pyinfra), "-y", str(inventory.resolve()), LOOK],
            cwd=ROOT,
            env=os.environ | {LOOK_FOLDER: folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not any(Path(folder).iterdir()):
            raise PlanError([f"no host could be looked at:\n{done.stdout.strip()}"])
        if done.returncode:
            print(done.stdout.strip(), file=sys.stderr)
        return seen.load(Path(folder)), done.returncode == 0


def _replace(path: Path, text: str) -> None:
    """Puts the file in place at once, and leaves one with the same text alone."""
    if path.exists() and path.read_text() == text:
        return
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def _summary(path: Path, old: Lock | None, new: Lock) -> str:
    wheels = {
        file.sha256: file.size or 0
        for stack in new.stack.values()
        for w in stack.wheels.values()
        for file in w
    }
    gib = sum(wheels.values()) / 1024**3
    said = f"{len(new.hosts)} hosts, {len(new.stack)} stacks, {len(wheels)} wheels ({gib:.1f} GiB)"
    changed = "unchanged" if old and not list(lock_diff.lines(old, new)) else "written"
    return f"{path}: {changed}: {said}, {len(new.model)} models."
