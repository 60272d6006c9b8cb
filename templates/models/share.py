"""Hosts that want the same model exchange it over their LAN: some pull from outside, all share.

The first seed keeps the meeting point: a BitTorrent tracker, the torrents of files that a seed has verified,
and small files themselves. Every host runs one aria2 for the large files, in private torrents that only these
hosts know. A host that hears and gets nothing for a while leaves and pulls the rest by itself.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

from meeting import Meeting
from places import SMALL_BYTES
from swarm import Swarm, torrent_of

# Until the first word from the meeting point (the seed may still be installing), and between signs of life.
FIRST_WORD_SECONDS, SILENCE_SECONDS = 45, 30
LINGER_SECONDS = 20
LOOK_SECONDS, WAIT_SECONDS = 0.3, 2

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_here: Member | None = None


def run(
    job: dict, files: dict[str, dict], missing: set[str], progress, fetch: Callable[[set[str]], None]
) -> set[str]:
    """Gets missing files from the other hosts, and as a seed a part of them from outside.

    Returns:
        What is still missing, for this host to pull by itself.
    """
    global _here
    wanted = job["share"]
    if not shutil.which("aria2c"):
        print("aria2 is not on this host: it pulls the model for itself", flush=True)
        return missing
    if wanted.get("firewall") and not Path(wanted["firewall"]).exists():
        print("the host's firewall cannot be set: it pulls the model for itself", flush=True)
        return missing
    try:
        _here = Member(job, files, progress)
    except OSError as error:
        print(f"the exchange cannot start ({error}): the host pulls the model for itself", flush=True)
        return missing
    return _here.run(missing, fetch)


def wait_for_the_others(progress) -> None:
    """Goes on sharing until every other host has the model or is gone."""
    if not _here:
        return
    progress.stop()
    try:
        _here.linger()
    except Exception as error:
        # this host has all of it, whatever becomes of the others
        print(f"the others have to pull what they lack ({error})", flush=True)


class Member:
    """One host in the exchange of one model."""

    def __init__(self, job: dict, files: dict[str, dict], progress) -> None:
        wish = job["share"]
        self.me, self.seeds, self.port = wish["me"], wish["seeds"], wish["port"]
        self.files, self.progress, self.staging = files, progress, Path(job["staging"])
        self.silence = wish.get("silence_seconds", SILENCE_SECONDS)
        self.patience = wish.get("first_word_seconds", FIRST_WORD_SECONDS)
        self.job, self.offered, self.added = job, set(), set()
        # none any more once this host has left it
        self.swarm: Swarm | None = Swarm(self.me, self.port + 1, len(wish["peers"]))
        self.meeting = None
        if self.me == self.seeds[0]:
            small = {path for path in files if files[path]["size"] < SMALL_BYTES}
            expected = dict.fromkeys(wish["expected"], time.monotonic() + self.patience)
            self.meeting = Meeting(self.me, self.port, self.staging, small, set(wish["peers"]), expected)
            # who asks the tracker before a seed has told it of itself need not ask again to find it
            self.meeting.always = [(seed, self.port + 1) for seed in self.seeds]
        self.known = 0
        self.torrents_of: dict[str, bytes] = {}
        self.prepared: dict[str, Future[bytes]] = {}
        self.torrents = ThreadPoolExecutor(1)
        if self.me in self.seeds:
            progress.along = self._prepare

    def run(self, missing: set[str], fetch: Callable[[set[str]], None]) -> set[str]:
        for path in set(self.files) - missing:
            self.offer(path)
        pulling = None
        if self.me in self.seeds:
            mine = self.my_part(missing)
            pulling = threading.Thread(target=self._pull, args=(mine, fetch), daemon=True)
            pulling.start()
        missing = self._receive(missing, pulling)
        return missing

    def my_part(self, missing: set[str]) -> set[str]:
        """What this seed pulls: the small files are the first seed's, the large are dealt out."""
        large = sorted(path for path in self.files if self.files[path]["size"] >= SMALL_BYTES)
        number = self.seeds.index(self.me)
        mine = set(large[number :: len(self.seeds)])
        return missing & (mine if number else mine | (set(self.files) - set(large)))

    def _pull(self, mine: set[str], fetch: Callable[[set[str]], None]) -> None:
        self.job["in_order"] = True
        try:
            if mine:
                fetch(mine)
        except SystemExit as error:
            # the seed has no better way than the others; they are told by its silence
            print(error.code, flush=True)
            os._exit(1)

    def _receive(self, missing: set[str], pulling: threading.Thread | None) -> set[str]:
        deadline, alive = time.monotonic() + self.patience, -1
        missing = set(missing)
        while missing:
            for path in sorted(missing):
                # a seed's own pull puts files in place one after another
                if path in self.progress.verified:
                    self.offer(path)
                    missing.discard(path)
            # with nothing under way, the answer comes when there is news
            idle = {} if pulling or self.swarm.busy() else {"known": self.known, "wait": WAIT_SECONDS}
            arrived = self.progress.bytes() if pulling else 0
            state = self.ask({"bytes": arrived, "torrents": len(self.torrents_of)} | idle)
            if state:
                self._take(state, missing)
            for path in self.swarm.finished():
                if path in missing and self.progress.check(path):
                    missing.discard(path)
                elif path in missing:
                    self.added.discard(path)
            life = (state or {}).get("bytes", 0) + self.swarm.bytes()
            if life != alive and state:
                deadline, alive = time.monotonic() + self.silence, life
            if pulling and pulling.is_alive():
                deadline = max(deadline, time.monotonic() + self.silence)
            if time.monotonic() > deadline:
                print(
                    f"nothing comes over the LAN any more: {len(missing)} files are pulled here", flush=True
                )
                self._leave()
                for path in missing:
                    for leftover in (self.staging / path, Path(f"{self.staging / path}.aria2")):
                        leftover.unlink(missing_ok=True)
                return missing
            self.progress.news.wait(0 if idle and state else LOOK_SECONDS)
            self.progress.news.clear()
        return missing

    def _take(self, state: dict, missing: set[str]) -> None:
        self.known = len(state["small"]) + state["count"]
        self.torrents_of |= {path: base64.b64decode(text) for path, text in state["torrents"].items()}
        for path in set(state["small"]) & missing:
            self._small(path)
            if self.progress.check(path):
                missing.discard(path)
        for path in self.torrents_of.keys() & missing - self.added:
            self.added.add(path)
            self.swarm.add(path, self.torrents_of[path], self.staging / path)

    def _small(self, path: str) -> None:
        content = self._get(f"/file?{urllib.request.quote(path)}")
        if content is not None:
            target = self.staging / path
            growing = Path(f"{target}.incomplete")
            target.parent.mkdir(parents=True, exist_ok=True)
            growing.write_bytes(content)
            growing.replace(target)

    def offer(self, path: str) -> None:
        """Tells the others that this host has a verified file, and shares it."""
        if path in self.offered or path in self.added or self.me not in self.seeds:
            return
        self.offered.add(path)
        if self.files[path]["size"] < SMALL_BYTES:
            if self.meeting:
                self.meeting.ready(path)
            return
        if not self.swarm:
            return
        if path not in self.prepared:
            self._prepare(path)
        torrent = self.prepared.pop(path).result()
        self.swarm.seed(path, self.staging / path, torrent)
        if self.meeting:
            self.meeting.torrent(path, torrent)
        else:
            self._get("/torrent", {"path": path, "torrent": base64.b64encode(torrent).decode()})

    def _prepare(self, path: str) -> None:
        """Makes a torrent while the file is still being verified: each of the two takes as long."""
        if self.swarm and self.files[path]["size"] >= SMALL_BYTES and path not in self.added:
            tracker = f"http://{self.seeds[0]}:{self.port}/announce"
            self.prepared[path] = self.torrents.submit(torrent_of, self.staging / path, tracker)

    def ask(self, word: dict) -> dict | None:
        answer = self._get("/state", word | {"me": self.me})
        return json.loads(answer) if answer else None

    def _get(self, path: str, body: dict | None = None) -> bytes | None:
        url = f"http://{self.seeds[0]}:{self.port}{path}"
        data = json.dumps(body).encode() if body is not None else None
        try:
            with _direct.open(urllib.request.Request(url, data), timeout=5) as answer:
                return answer.read()
        # the latter where it ends in mid-sentence
        except (OSError, HTTPException):
            return None

    def linger(self) -> None:
        """Shares on until nobody needs it."""
        for path in self.files:
            self.offer(path)
        silent_since = time.monotonic()
        while time.monotonic() - silent_since < LINGER_SECONDS:
            state = self.ask({"done": True, "wait": WAIT_SECONDS})
            if state:
                silent_since = time.monotonic()
                if state["over"]:
                    break
            elif not self.meeting:
                break
            time.sleep(LOOK_SECONDS)
        if self.meeting:
            self.meeting.close()
        self._leave()

    def _leave(self) -> None:
        if self.swarm:
            self.swarm.stop()
            self.swarm = None
