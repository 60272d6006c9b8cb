"""Where a model's files come from: ModelScope by its own client, Hugging Face, a web server, a directory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlencode

import disk

# Called with each file that is in place, and with False for one whose bytes are wrong.
Done = Callable[..., None]
WORKERS = 4
# What is smaller costs more in waiting than in bytes.
SMALL_BYTES = 16 << 20
MOST_LISTED = 3000
TIMEOUT_SECONDS = 60
# The client's own budget of 3600 s for a file kills large shards on slow lines. A stall ends it sooner.
CLIENT_SETTINGS = {"MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT": str(30 * 24 * 3600), "MODELSCOPE_LOG_LEVEL": "40"}
STALL_SECONDS = 180
# A client that reads so much is at its own files: it tries again and again with far fewer bytes.
WORK_BYTES = 64 << 20
DEFAULT_BRANCH = {"huggingface": "main"}
REFUSALS = {
    401: "lets nobody in without the right token",
    403: "lets nobody in without the right token",
    404: "has no such model, revision or file",
}


class RefusedError(Exception):
    """A definite no: asking again changes nothing."""


class AskOperatorError(Exception):
    """Only the operator's machine can help on; this program ends, and is started again when it has."""


def all_of(job: dict) -> list[Place]:
    """The places of the settings, the one that named the commit first."""
    kinds = {"huggingface": HuggingFace, "mirror": Mirror, "host": Directory, "operator": Upload}
    made = []
    for text in sorted(job["places"], key=lambda place: place != job["pinned_by"]):
        kind, _, address = re.split(r"([+:])", text, maxsplit=1)
        made.append(kinds[kind](job, text, address) if kind in kinds else ModelScope(job, text, text))
    return made


def batches(paths: list[str], files: dict[str, dict], job: dict) -> list[tuple[int, list[str]]]:
    """How many files at a time, and which.

    Where other hosts wait for whole files, the large ones come one after another, the smallest of them last:
    for that one they still wait when the line is free again.
    """
    if not job.get("in_order"):
        return [(WORKERS, paths)]
    small = [path for path in paths if files[path]["size"] < SMALL_BYTES]
    large = sorted(set(paths) - set(small), key=lambda path: (-files[path]["size"], path))
    return [(workers, batch) for workers, batch in ((WORKERS, small), (1, large)) if batch]


class Place:
    """Lists the files of the job's commit, and brings some of them into a directory."""

    kind = ""

    def __init__(self, job: dict, name: str, address: str) -> None:
        self.job, self.name, self.address = job, name, address
        self.model = job["model"]
        pinned = name == job["pinned_by"] or job["pinned_by"].startswith(f"{self.kind}+")
        # another hub has commits of its own: there the branch is asked for, and the hashes decide
        branch = DEFAULT_BRANCH.get(self.kind, "master") if job["revision"] == "master" else job["revision"]
        self.revision = job["commit"] if pinned or self.kind in ("mirror",) else branch
        self.pinned = pinned

    def listing(self) -> dict[str, dict]:
        raise NotImplementedError

    def fetch(self, paths: list[str], files: dict[str, dict], staging: Path, done: Done) -> None:
        raise NotImplementedError


class ModelScope(Place):
    """A hub of ModelScope's, by its own client in a process of its own, which is ended when it stalls."""

    kind = "modelscope"

    def __init__(self, job: dict, name: str, address: str) -> None:
        super().__init__(job, name, address)
        if job["pinned_by"].startswith(("http://", "https://", "modelscope+")):
            self.pinned, self.revision = True, job["commit"]  # all hubs of ModelScope's share their commits

    def listing(self) -> dict[str, dict]:
        if not self.pinned:
            raise RefusedError("knows no commit of another hub")
        query = urlencode({"Revision": self.revision, "Recursive": "True"})
        token = os.environ.get("MODELSCOPE_API_TOKEN")
        url = f"{self.address}/api/v1/models/{self.model}/repo/files?{query}"
        with get(url, {"Authorization": f"Bearer {token}"} if token else {}) as answer:
            entries = json.load(answer)["Data"]["Files"]
        if len(entries) >= MOST_LISTED:
            # the hub cuts a longer list off; its client walks the folders one by one, which takes a while
            lines: list[str] = []
            self._client(["list"], "", lines.append, None)
            return json.loads("".join(lines))
        return {
            entry["Path"]: {"size": entry["Size"], "sha256": entry.get("Sha256")}
            for entry in entries
            if entry["Type"] != "tree"
        }

    def fetch(self, paths: list[str], files: dict[str, dict], staging: Path, done: Done) -> None:
        wanted = [
            (workers, [(path, files[path]["size"], files[path]["sha256"]) for path in batch])
            for workers, batch in batches(paths, files, self.job)
        ]

        def heard(line: str) -> None:
            word, _, path = line.partition(" ")
            done(path, word == "done")

        self._client(["fetch", str(staging)], json.dumps(wanted), heard, staging)

    def _client(self, arguments: list[str], given: str, heard: Callable, staging: Path | None) -> None:
        program = Path(__file__).with_name("client.py")
        command = [sys.executable, str(program), self.address, self.model, self.revision, *arguments]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                command,
                env=os.environ | CLIENT_SETTINGS,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            watch = threading.Thread(target=end_when_stalled, args=(process, staging), daemon=True)
            watch.start()
            process.stdin.write(given)
            process.stdin.close()
            for line in process.stdout:
                heard(line.rstrip("\n"))
            process.wait()
            errors.seek(0)
            words = [line for line in errors.read().splitlines() if line.strip()]
        if process.returncode:
            kind, _, text = (words or [f"failed: exit {process.returncode}"])[-1].partition(": ")
            raise RefusedError(text) if kind == "refused" else OSError(f"fails: {text or kind}"[:300])


def end_when_stalled(process: subprocess.Popen, staging: Path | None) -> None:
    """Kills a client that has brought nothing for a while; what it has stays.

    One that goes on with a large file hashes what is there before it writes; on a slow disk that takes long.
    """
    seen, read, since = -1, 0, time.monotonic()
    while process.poll() is None:
        time.sleep(1)
        now, read_by_now = disk.bytes_below(staging) if staging else 0, bytes_read(process.pid)
        if now != seen or read_by_now >= read + WORK_BYTES:
            seen, read, since = now, read_by_now, time.monotonic()
        elif time.monotonic() - since > STALL_SECONDS:
            process.kill()


def bytes_read(pid: int) -> int:
    """How much a process has read so far, from wherever; 0 where nobody may know."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


class Web(Place):
    """Files over plain HTTP, four at a time, each going on where it was cut."""

    def headers(self) -> dict[str, str]:
        return {}

    def url(self, path: str) -> str:
        raise NotImplementedError

    def fetch(self, paths: list[str], files: dict[str, dict], staging: Path, done: Done) -> None:
        waiting = []
        for workers, batch in batches(paths, files, self.job):
            with ThreadPoolExecutor(workers) as pool:
                waiting += [
                    pool.submit(self._file, path, files[path]["size"], staging, done) for path in batch
                ]
        for each in waiting:
            each.result()

    def _file(self, path: str, size: int, staging: Path, done: Done) -> None:
        target = staging / path
        target.parent.mkdir(parents=True, exist_ok=True)
        growing = Path(f"{target}.incomplete")
        there = growing.stat().st_size if growing.exists() else 0
        if there > size:
            growing.unlink()
            there = 0
        if there < size or size == 0:
            with self.open(self.url(path), there) as answer:
                # a server without ranges sends all of it
                mode = "ab" if there and answer.status == 206 else "wb"
                with growing.open(mode) as stream:
                    shutil.copyfileobj(answer, stream, 1 << 18)
            if growing.stat().st_size < size:
                raise OSError(f"the connection was cut at {growing.stat().st_size} of {size} bytes of {path}")
        growing.replace(target)
        done(path)

    def open(self, url: str, start: int = 0):
        return get(url, self.headers(), start)


def get(url: str, headers: dict[str, str], start: int = 0):
    """The answer to a request, from a byte on; `headers` go to this server and to none that it names."""
    request = urllib.request.Request(url, headers={"User-Agent": "bringup"})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code in REFUSALS:
            raise RefusedError(REFUSALS[error.code]) from None
        raise OSError(f"answers {error.code}") from None


class HuggingFace(Web):
    """The Hugging Face hub, or a mirror of its API."""

    kind = "huggingface"

    def headers(self) -> dict[str, str]:
        token = os.environ.get("HF_TOKEN")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def listing(self) -> dict[str, dict]:
        if not self.pinned:
            raise RefusedError("knows no commit of another hub")
        url: str | None = f"{self.address}/api/models/{self.model}/tree/{self.revision}?recursive=true"
        files: dict[str, dict] = {}
        while url:
            with self.open(url) as answer:
                entries = json.load(answer)
                after = re.search(r'<([^>]+)>;\s*rel="next"', answer.headers.get("Link") or "")
            for entry in entries:
                if entry.get("type") == "file":
                    large = entry.get("lfs") or {}
                    files[entry["path"]] = {
                        "size": large.get("size", entry["size"]),
                        "sha256": large.get("oid"),
                        "git": None if large else entry.get("oid"),
                    }
            url = after.group(1) if after else None
        return files

    def url(self, path: str) -> str:
        return f"{self.address}/{self.model}/resolve/{quote(self.revision, safe='')}/{quote(path)}"


class Mirror(Web):
    """A web server over the models of a host that bringup made: the manifest lists them."""

    kind = "mirror"

    def listing(self) -> dict[str, dict]:
        with self.open(self.url(disk.MANIFEST)) as answer:
            return disk.listed(json.load(answer))

    def url(self, path: str) -> str:
        return f"{self.address}/{self.model}/{self.revision}/{quote(path)}"


class Directory(Place):
    """A directory on this host, on NFS for instance: with a manifest, or files as they are."""

    kind = "host"

    def _root(self) -> Path | None:
        above = Path(self.address) / self.model
        candidates = [above / self.job["commit"], above / "current", above]
        return next((path for path in candidates if path.is_dir()), None)

    def listing(self) -> dict[str, dict]:
        root = self._root()
        if root is None:
            raise RefusedError("has no such model")
        found = disk.read_manifest(root)
        if found:
            if found.get("commit") != self.job["commit"]:
                raise RefusedError("has another commit of it")
            return disk.listed(found)
        lines = []
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                seconds, fraction = divmod(status.st_mtime_ns, 10**9)
                lines.append(f"{path.relative_to(root)} {status.st_size} {seconds}.{fraction:09d}0")
        if hashlib.sha1("\n".join(sorted(lines, key=os.fsencode)).encode()).hexdigest() != self.job["commit"]:
            raise RefusedError("has changed since the plan was made. Run again")
        paths = [line.rsplit(" ", 2) for line in lines]
        return {path: {"size": int(size), "sha256": None} for path, size, _ in paths}

    def fetch(self, paths: list[str], files: dict[str, dict], staging: Path, done: Done) -> None:
        root = self._root()
        if root is None:
            raise RefusedError("has no such model")
        for path in paths:
            if not (root / path).is_file():
                raise RefusedError(f"has no {path}")
            target = staging / path
            target.parent.mkdir(parents=True, exist_ok=True)
            growing = Path(f"{target}.incomplete")
            shutil.copyfile(root / path, growing)
            growing.replace(target)
            done(path)


class Upload(Place):
    """What the operator's machine sent into the staging directory, with a list of it."""

    kind = "operator"

    def listing(self) -> dict[str, dict]:
        if not self.pinned:
            raise RefusedError("knows no commit of another place")
        try:
            return json.loads(Path(self.job["staging"] + ".json").read_text())
        except OSError:
            raise RefusedError("has not been uploaded") from None

    def fetch(self, paths: list[str], files: dict[str, dict], staging: Path, done: Done) -> None:
        if os.environ.get("BRINGUP_OPERATOR"):
            Path(self.job["staging"] + ".wanted").write_text("".join(f"{path}\n" for path in paths))
            raise AskOperatorError
        raise RefusedError("has not uploaded all of it. Run again to go on" if self.pinned else "cannot help")
