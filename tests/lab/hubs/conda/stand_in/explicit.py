"""Explicit lock files: `@EXPLICIT`, then one URL per line with its md5 or sha256."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from .errors import ChecksumMismatchError, CondaHTTPError, CondaValueError, ParseError

LINE = re.compile(
    r"(?P<url>(?P<channel>[a-z]+://\S+)/(?P<subdir>[^/#\s]+)/(?P<file>[^/#\s]+(?:\.tar\.bz2|\.conda)))"
    r"(?:#(?:(?P<md5>[0-9a-f]{32})|(?:sha256:)?(?P<sha256>[0-9a-f]{64})))?"
)
TRIES = 3
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class ExplicitPackage:
    url: str
    channel: str
    subdir: str
    file: str
    md5: str | None
    sha256: str | None


def read(path: Path) -> list[ExplicitPackage]:
    """The packages of a lock file, in its order."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except OSError as error:
        raise CondaValueError(f"could not read '{path}': {error.strerror}") from error
    if "@EXPLICIT" not in lines:
        raise CondaValueError(f"'{path}' is not an explicit file; this stand-in has no solver.")
    wanted = [line for line in lines if line and not line.startswith(("#", "@"))]
    return [parse(line) for line in wanted]


def parse(line: str) -> ExplicitPackage:
    match = LINE.fullmatch(line)
    if match is None:
        raise ParseError(f"Could not parse explicit URL: {line}")
    return ExplicitPackage(**match.groupdict())


def fetch(package: ExplicitPackage, folder: Path) -> Path:
    """Download into the package cache unless it is there, and check its hash before it is put in place."""
    target = folder / package.file
    if not target.exists() or mismatch(package, target):
        partial = folder / f"{package.file}.partial"
        download(package.url, partial)
        problem = mismatch(package, partial)
        if problem:
            partial.unlink()
            raise ChecksumMismatchError(problem)
        partial.replace(target)
    return target


def download(url: str, target: Path) -> None:
    for left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, target.open("wb") as file:
                shutil.copyfileobj(answer, file)
                expected = int(answer.headers.get("Content-Length", file.tell()))
                if file.tell() == expected:
                    return
            problem = f"CONNECTION FAILED for url <{url}>: {target.stat().st_size} of {expected} bytes came"
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason.upper()} for url <{url}>"
            if error.code < 500:
                break
        except OSError as error:
            problem = f"HTTP 000 CONNECTION FAILED for url <{url}>: {error}"
        if left:
            time.sleep(1)
    raise CondaHTTPError(problem)


def mismatch(package: ExplicitPackage, path: Path) -> str | None:
    """conda's message where the file is not what the lock file says, else None."""
    for algorithm, expected in (("sha256", package.sha256), ("md5", package.md5)):
        if expected is None:
            continue
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, algorithm).hexdigest()
        if actual != expected:
            return (
                "Conda detected a mismatch between the expected content and downloaded content\n"
                f"for url '{package.url}'.\n"
                f"  download saved to: {path}\n"
                f"  expected {algorithm}: {expected}\n"
                f"  actual {algorithm}: {actual}"
            )
    return None
