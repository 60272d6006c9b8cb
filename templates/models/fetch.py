"""Brings one model to this host, whole or not at all. Run by a systemd unit; prints progress lines.

    fetch.py JOB        JOB is JSON; see `plan.models_host`

Files grow in a staging directory, where a cut download goes on. Each is checked against the sizes and hashes
that its hub lists, the manifest is written beside them, and one rename publishes the directory.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import disk
import places
import share

RESERVE_BYTES = 1 << 30
# A place that gives a file with wrong bytes so often gets no further chance with it.
MOST_WRONG = 2
LONGEST_PAUSE_SECONDS = 20


def main(job: dict) -> None:
    name = f"{job['model']}@{job['revision']}"
    final, staging = Path(job["directory"]), Path(job["staging"])
    manifest = disk.manifest(final, job)
    files = disk.listed(manifest) if manifest else listing(job, name)
    if not files:
        sys.exit(f"{name}: no file is left of it by include and exclude. Correct models.{job['model']}.")
    if manifest and not disk.wrong(final, files):
        disk.refresh(final, manifest)
        shutil.rmtree(staging, ignore_errors=True)
        say(f"{len(files)} files, {gib(size_of(files))}, all verified, nothing to mend")
        return
    staging.mkdir(parents=True, exist_ok=True)
    Path(f"{staging}.wanted").unlink(missing_ok=True)
    for path in disk.adopt(staging, final, files):
        say(f"{path} is not as it was verified and is fetched anew")
    disk.hold_to(staging, files, job["commit"])
    progress = Progress(staging, files)
    job["share"] = json.loads(os.environ.get("BRINGUP_SHARE", "null"))
    uploaded = job["pinned_by"].startswith("operator:")
    disk.sweep(staging, files, progress.verified, in_place=uploaded or bool(job["share"]))
    check_space(staging, files)
    progress.start()
    missing = set(files) - progress.verified
    if job["share"]:
        missing = share.run(
            job, files, missing, progress, lambda wanted: fetch(job, name, files, wanted, progress)
        )
    fetch(job, name, files, missing, progress)
    if job["share"]:
        share.wait_for_the_others(progress)
    disk.publish(job, staging, final, files)
    progress.stop()
    unlisted = sum(not file["sha256"] for file in files.values())
    caveat = f"; there is no sha256 for {unlisted} of them, so only their sizes are" if unlisted else ""
    say(f"{len(files)} files, {gib(size_of(files))}, all verified{caveat}")


def listing(job: dict, name: str) -> dict[str, dict]:
    """Path -> bytes and hashes of every wanted file of the commit, from the first place that lists it."""
    deadline = time.monotonic() + job["patience_seconds"]
    pause = 1
    while True:
        noes, final = [], True
        for place in places.all_of(job):
            try:
                found = disk.held(place.listing(), job)
                break
            except (places.RefusedError, disk.OtherBytesError) as error:
                noes.append(f"{place.name} {error}")
            except Exception as error:
                final = False
                noes.append(f"{place.name} does not answer ({first_line(error)})")
        else:
            if final or time.monotonic() > deadline:
                sys.exit(f"{name}: nobody lists its files: {'; '.join(noes)}.")
            say(f"waiting: {'; '.join(noes)}")
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            continue
        for path in found:
            if path.startswith("/") or ".." in Path(path).parts or path in (disk.MANIFEST, disk.MARKER):
                sys.exit(f"{name}: {place.name} lists {path!r}, which is no path for a file of a model.")
        return {path: file for path, file in found.items() if disk.wanted(path, job)}


def fetch(job: dict, name: str, files: dict[str, dict], missing: set[str], progress: Progress) -> None:
    """Gets these files from the places in turn until each is verified; ends the program if that cannot be."""
    wrong: dict[tuple[str, str], int] = {}
    words: dict[str, str] = {}
    patience, pause, best = time.monotonic() + job["patience_seconds"], 1, -1
    missing = set(missing) - progress.verified
    while missing:
        hopeful = False
        for place in places.all_of(job):
            paths = [
                path for path in files if path in missing and wrong.get((place.name, path), 0) < MOST_WRONG
            ]
            if not paths:
                continue
            verdicts: dict[str, bool | None] = {}

            def done(path: str, whole: bool = True, verdicts: dict = verdicts) -> None:
                verdicts[path] = progress.check(path) if whole else False

            try:
                place.fetch(paths, files, progress.staging, done)
                words.pop(place.name, None)
            except places.AskOperatorError:
                told = "; ".join(f"{each} {word}" for each, word in words.items())
                sys.exit(f"{name}: {len(paths)} files are wanted from the operator's machine: {told}.")
            except places.RefusedError as error:
                words[place.name] = str(error)
            except Exception as error:
                words[place.name] = first_line(error)
                hopeful = True
            for path in paths:
                verdict = verdicts[path] if path in verdicts else progress.check(path)
                if verdict:
                    missing.discard(path)
                elif verdict is False:
                    wrong[place.name, path] = wrong.get((place.name, path), 0) + 1
                    words[place.name] = f"gives {path} with other bytes than listed"
                    hopeful |= wrong[place.name, path] < MOST_WRONG
            if not missing:
                return
        if progress.bytes() > best:
            best, patience, pause = progress.bytes(), time.monotonic() + job["patience_seconds"], 1
        if not hopeful or time.monotonic() > patience:
            told = "; ".join(f"{place} {word}" for place, word in words.items())
            some = ", ".join(sorted(missing)[:3])
            sys.exit(
                f"{name}: {len(missing)} files cannot be had ({some}): {told}. "
                "What is right stays; run again."
            )
        say(f"again in {pause} s: {'; '.join(f'{place} {word}' for place, word in words.items())}"[:400])
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def check_space(staging: Path, files: dict[str, dict]) -> None:
    """Before the first byte: what is missing must fit, and leave the host some room."""
    needed = size_of(files) - disk.bytes_below(staging) + RESERVE_BYTES
    free = disk.free(staging)
    if free < needed:
        sys.exit(f"{staging.parent}: {gib(free)} free, {gib(needed)} needed for the model. Make room there.")


class Progress:
    """What of the model is there; tells it every two seconds."""

    def __init__(self, staging: Path, files: dict[str, dict]) -> None:
        self.staging, self.files = staging, files
        self.total = size_of(files)
        self.verified = {path for path in files if disk.matches(staging / path, files[path])}
        self._ended = threading.Event()
        # set when a file has been verified; called with each that is about to be read for it
        self.news = threading.Event()
        self.along: Callable[[str], None] | None = None

    def check(self, path: str) -> bool | None:
        """Whether a file is right; None when it is not whole yet. A wrong one is removed."""
        file, target = self.files[path], self.staging / path
        if not target.is_file() or target.stat().st_size < file["size"]:
            return None
        if self.along:
            self.along(path)
        if disk.matches(target, file):
            self.verified.add(path)
            self.news.set()
            return True
        target.unlink()
        return False

    def bytes(self) -> int:
        return disk.bytes_below(self.staging)

    def start(self) -> None:
        threading.Thread(target=self._report, daemon=True).start()

    def stop(self) -> None:
        self._ended.set()

    def _report(self) -> None:
        began, first = time.monotonic(), self.bytes()
        while not self._ended.wait(2):
            there = self.bytes()
            rate = (there - first) / (time.monotonic() - began)
            left = f", {(self.total - there) / rate:.0f} s left" if rate > 4096 and self.total > there else ""
            share_done = min(there / self.total, 1) if self.total else 1
            say(f"{share_done:.0%} of {gib(self.total)}, {rate / 2**20:.1f} MiB/s{left}")


def size_of(files: dict[str, dict]) -> int:
    return sum(file["size"] for file in files.values())


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    if wanted["max_rate_mbit"]:
        import throttle

        throttle.limit(wanted["max_rate_mbit"])
    main(wanted)
    # threads of a swarm or of a proxy hold nothing that must be finished
    sys.stdout.flush()
    os._exit(0)
