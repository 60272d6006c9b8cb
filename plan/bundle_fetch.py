"""Fetches the files of a bundle: each goes on where it was cut, is checked, and comes once."""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlparse

import httpx

from plan import web
from plan.bundle import File
from plan.bundle_addresses import Found
from plan.errors import PlanError

_AT_ONCE = 4
# Between tries after which no byte more had come; a source that gives on is asked on.
_PAUSES_SECONDS = (1, 2, 4, 8)
_ASK_AGAIN = {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS}
_TIMEOUT_SECONDS = 60.0
# Called with the number of bytes that have come, or that were there already.
Heard = Callable[[int], None]


def sizes(found: Iterable[Found]) -> dict[str, int | None]:
    """Path -> bytes, as the lock says or else the source; None where neither does."""
    with web.client(timeout=_TIMEOUT_SECONDS) as client, ThreadPoolExecutor(_AT_ONCE * 4) as pool:
        files = list(found)
        found_sizes = pool.map(lambda one: _size(client, one), files)
        return dict(zip((one.file.path for one in files), found_sizes, strict=True))


def _size(client: httpx.Client, found: Found) -> int | None:
    if found.file.size is not None:
        return found.file.size
    for url in found.urls:
        if url.startswith("file:"):
            path = _local(url)
            return path.stat().st_size if path.is_file() else None
        try:
            answer = client.head(url, headers=found.headers.get(url))
        except httpx.HTTPError:
            continue
        if answer.is_success and "content-length" in answer.headers:
            return int(answer.headers["content-length"])
    return None


def fetch(found: Iterable[Found], root: Path, heard: Heard) -> tuple[dict[str, str], list[str]]:
    """Brings every file into the bundle's directory.

    Returns:
        Path -> sha256 of what is there and right, and a sentence for each file that cannot be had.
    """
    work = _Work(root, heard)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        problems = [problem for problem in pool.map(work.bring, found) if problem]
    work.client.close()
    return work.hashes, problems


class _Work:
    def __init__(self, root: Path, heard: Heard) -> None:
        self.root = root
        self.heard = heard
        self.client = web.client(timeout=_TIMEOUT_SECONDS)
        self.hashes: dict[str, str] = {}
        # sha256 -> a file with that content, and who brings it
        self._by_hash: dict[str, Path] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def bring(self, found: Found) -> str | None:
        """Puts one file in place; a sentence when it cannot be had."""
        try:
            return self._bring(found)
        except OSError as error:  # of the disk: a full one, a damaged one
            return f"{found.file.path}: {error.strerror or error}"

    def _bring(self, found: Found) -> str | None:
        file = found.file
        with self._guard:
            lock = self._locks.setdefault(file.sha256 or file.path, threading.Lock())
        # the same bytes are fetched once, whatever they are called
        with lock:
            target = self.root / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = right(target, file)
            if digest is None:
                twin = self._by_hash.get(file.sha256 or "")
                digest = _link(twin, target, file) if twin else None
                if digest is None:
                    digest, why = self._from_any(found, target)
                    if digest is None:
                        return f"{file.path}: {why}"
            elif digest not in self._by_hash:
                self.heard(target.stat().st_size)
            # where it was begun, and then found elsewhere
            _growing(target).unlink(missing_ok=True)
            self.hashes[file.path] = digest
            self._by_hash.setdefault(digest, target)
        return None

    def _from_any(self, found: Found, target: Path) -> tuple[str | None, str]:
        words = []
        for url in found.urls:
            why = self._from(url, found.headers.get(url, {}), target, found.file)
            if not why:
                digest = right(target, found.file)
                assert digest
                return digest, ""
            words.append(f"{url}: {why}")
        return None, "; ".join(words) or "no source has it"

    def _from(self, url: str, headers: Mapping[str, str], target: Path, file: File) -> str:
        """Why a file is not to be had at an address; empty when it is in place."""
        growing = _growing(target)
        if url.startswith("file:"):
            if not _local(url).is_file():
                return "there is no such file"
            shutil.copyfile(_local(url), growing)
            self.heard(growing.stat().st_size)
        else:
            went_on = growing.exists()
            why = self._over_the_net(url, headers, growing)
            if not why and went_on and right(growing, file) is None:
                # what an earlier run left was the beginning of another file
                self._drop(growing)
                why = self._over_the_net(url, headers, growing)
            if why:
                return why
        if right(growing, file) is None:
            self._drop(growing)
            return "other bytes than the lock has"
        growing.replace(target)
        return ""

    def _drop(self, growing: Path) -> None:
        self.heard(-growing.stat().st_size)
        growing.unlink()

    def _over_the_net(self, url: str, headers: Mapping[str, str], growing: Path) -> str:
        """Why a file did not come whole; empty when it did."""
        pauses = iter(_PAUSES_SECONDS)
        while True:
            before = _size_of(growing)
            try:
                self._download(url, headers, growing)
                return ""
            except httpx.HTTPStatusError as error:
                code = error.response.status_code
                why = f"answers {code}"
                if not error.response.is_server_error and code not in _ASK_AGAIN:
                    return why
            except httpx.HTTPError as error:
                why = str(error) or type(error).__name__
            if _size_of(growing) > before:
                pauses = iter(_PAUSES_SECONDS)
            pause = next(pauses, None)
            if pause is None:
                return why
            time.sleep(pause)

    def _download(self, url: str, headers: Mapping[str, str], growing: Path) -> None:
        there = _size_of(growing)
        ranged = {"Range": f"bytes={there}-"} if there else {}
        # compressed on the way, a range would be one of other bytes
        asked = {"Accept-Encoding": "identity", **headers, **ranged}
        with self.client.stream("GET", url, headers=asked) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.heard(there)
                return
            answer.raise_for_status()
            goes_on = answer.status_code == httpx.codes.PARTIAL_CONTENT
            if goes_on:
                self.heard(there)
            with growing.open("ab" if goes_on else "wb") as stream:
                come = there if goes_on else 0
                try:
                    for piece in answer.iter_raw():
                        stream.write(piece)
                        come += len(piece)
                        self.heard(len(piece))
                except httpx.HTTPError:
                    self.heard(-come)  # the next try counts what is there
                    raise


def right(path: Path, file: File) -> str | None:
    """The sha256 of a file that is as the lock has it; None when it is not there, or another."""
    if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
        return None
    if file.md5 and digest(path, "md5") != file.md5:
        return None
    found = digest(path)
    return found if file.sha256 in (None, found) else None


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _link(twin: Path, target: Path, file: File) -> str | None:
    try:
        target.unlink(missing_ok=True)
        os.link(twin, target)
    except OSError:  # a file system without links, as sticks have
        shutil.copyfile(twin, target)
    return right(target, file)


def _growing(target: Path) -> Path:
    """What has come of a file."""
    return target.with_name(f"{target.name}.part")


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _local(url: str) -> Path:
    return Path(unquote(urlparse(url).path))


def written(root: Path, texts: Mapping[str, str]) -> dict[str, str]:
    """Writes small files of our own; path -> sha256."""
    for path, text in texts.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f"{target.name}.part")
        new.write_text(text)
        new.replace(target)
    return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}


def free_or_refuse(root: Path, needed_bytes: int) -> None:
    """Looks whether the disk has room for what is to come.

    Raises:
        PlanError: it has not.
    """
    free = shutil.disk_usage(root).free
    if free < needed_bytes:
        raise PlanError(
            [
                f"bundle: {root} has {free / 1024**3:.1f} GiB free, and {needed_bytes / 1024**3:.1f} GiB are "
                "to come. Name a larger disk, or fetch less with --only."
            ]
        )
