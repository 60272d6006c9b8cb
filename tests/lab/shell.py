"""Outer commands, whose failure becomes one sentence."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.layout import LabError


def tell(message: str) -> None:
    """Progress, for people: standard error."""
    print(message, file=sys.stderr, flush=True)


def call(*command: str | Path, input: str | None = None) -> str:
    """Run a command to its end and return its standard output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, input=input)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise LabError(f"`{' '.join(map(str, command))}` failed: {reason[-1]}")
    return done.stdout


@contextmanager
def locked(path: Path, waiting_for: str = "") -> Iterator[None]:
    """Hold PATH (a file, made if missing, or a directory) for this process alone."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting_for:
                tell(f"waiting for {waiting_for}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Keep others from `locked(PATH)`, but not from sharing it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a living process holds PATH."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
