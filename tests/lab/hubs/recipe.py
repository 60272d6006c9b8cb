"""Build a folder once per recipe: nothing is done again while the recipe stays, cut builds never count."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

RECIPE_FILE = ".recipe"


class BuildError(RuntimeError):
    """What stopped a build, in one sentence."""


def recipe_hash(*parts: object) -> str:
    """A hash over values and the contents of files (given as Path); the order matters."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else repr(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """One build at a time under `root`; another one waits here until it is over."""
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another build works in {root}, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_folder(folder: Path, recipe: str, make: Callable[[Path], None]) -> None:
    """Fill `folder` by `make(temporary folder)` unless it was already built by this recipe.

    The old folder stays in place until the new one is complete. Call it inside `locked`.
    """
    if built_by(folder) == recipe:
        return
    began = time.monotonic()
    progress(f"{folder.name}: building")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(leftover)
    temporary.mkdir(parents=True)
    make(temporary)
    (temporary / RECIPE_FILE).write_text(recipe)
    if folder.exists():
        folder.rename(folder.with_name(f".{folder.name}.old"))
    temporary.rename(folder)
    shutil.rmtree(folder.with_name(f".{folder.name}.old"), ignore_errors=True)
    progress(f"{folder.name}: built in {time.monotonic() - began:.1f} s")


def built_by(folder: Path) -> str | None:
    try:
        return (folder / RECIPE_FILE).read_text()
    except FileNotFoundError:
        return None


def progress(line: str) -> None:
    print(f"hubs: {line}", file=sys.stderr, flush=True)
