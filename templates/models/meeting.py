"""Where the hosts of an exchange meet: a tracker (BEP 3, 23), torrents, small files, who is done."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

ANNOUNCE_SECONDS = 3
GONE_SECONDS = 20
LONGEST_WAIT_SECONDS = 2
MOST_BODY_BYTES = 64 << 20


class Meeting:
    """Listens on one address and port; only the given peers are answered."""

    def __init__(
        self,
        address: str,
        port: int,
        staging: Path,
        small: set[str],
        peers: set[str],
        expected: dict[str, float],
    ) -> None:
        """`expected`: the hosts that will come, and until when (monotonic seconds) they are waited for."""
        self.expected = expected
        self.always: list[tuple[str, int]] = []
        self.staging, self.small, self.peers = staging, small, peers
        self.files: set[str] = set()
        self.torrents: dict[str, bytes] = {}
        self.swarms: dict[bytes, dict[tuple[str, int], float]] = {}
        self.seen: dict[str, float] = {}
        self.done: set[str] = set()
        self.bytes: dict[str, int] = {}
        self.told: set[str] = set()
        self.lock = threading.Condition()
        handler = type("Handler", (Handler,), {"meeting": self})
        self.server = ThreadingHTTPServer((address, port), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def ready(self, path: str) -> None:
        with self.lock:
            self.files.add(path)
            self.lock.notify_all()

    def torrent(self, path: str, torrent: bytes) -> None:
        with self.lock:
            self.torrents[path] = torrent
            self.lock.notify_all()

    def state(self, word: dict) -> dict:
        """What a host may know, after it said what it does; it may wait a while for news."""
        patience = time.monotonic() + min(word.get("wait", 0), LONGEST_WAIT_SECONDS)
        with self.lock:
            me = word["me"]
            self.seen[me] = time.monotonic()
            self.bytes[me] = word.get("bytes", 0)
            if word.get("done"):
                self.done.add(me)
                self.lock.notify_all()
            known = len(self.files) + len(self.torrents)
            while not self._over() and time.monotonic() < patience:
                if word.get("known", known) < len(self.files) + len(self.torrents):
                    break
                self.lock.wait(0.5)
            if self._over():
                self.told.add(me)
                self.lock.notify_all()
            # the answer brings them along: where all ask at once, another connection may wait for a second
            new = list(self.torrents.items())[word.get("torrents", len(self.torrents)) :]
            return {
                "small": sorted(self.files),
                "torrents": {path: base64.b64encode(torrent).decode() for path, torrent in new},
                "count": len(self.torrents),
                "bytes": sum(self.bytes.values()) + len(self.torrents),
                "over": self._over(),
            }

    def _over(self) -> bool:
        now = time.monotonic()
        until = self.expected | {host: seen + GONE_SECONDS for host, seen in self.seen.items()}
        return not [host for host, end in until.items() if host not in self.done and now < end]

    def close(self) -> None:
        """Waits a moment until every host has heard that it is over."""
        with self.lock:
            self.lock.wait_for(lambda: self.told >= set(self.seen), timeout=1)

    def announce(self, peer: str, query: dict[str, str]) -> bytes:
        key, port = unquote_to_bytes(query.get("info_hash", "")), int(query.get("port", 0))
        with self.lock:
            swarm = self.swarms.setdefault(key, {})
            if query.get("event") == "stopped":
                swarm.pop((peer, port), None)
            else:
                swarm[peer, port] = time.monotonic()
            there = [each for each, seen in swarm.items() if time.monotonic() - seen < 60]
            others = [each for each in dict.fromkeys([*self.always, *there]) if each != (peer, port)]
        packed = b"".join(socket.inet_aton(host) + struct.pack(">H", number) for host, number in others)
        interval = ANNOUNCE_SECONDS
        return b"d8:intervali%de12:min intervali%de5:peers%d:%se" % (interval, interval, len(packed), packed)


class Handler(BaseHTTPRequestHandler):
    """Answers the hosts of the exchange."""

    meeting: Meeting
    timeout = 60

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        # a host that went away in mid-sentence is no news
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        peer = self.client_address[0]
        if peer not in self.meeting.peers:
            self.send_error(403)
        elif path == "/announce":
            fields = dict(part.split("=", 1) for part in query.split("&") if "=" in part)
            self._send(self.meeting.announce(peer, fields))
        elif path == "/file" and unquote(query) in self.meeting.files & self.meeting.small:
            self._send((self.meeting.staging / unquote(query)).read_bytes())
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.client_address[0] not in self.meeting.peers or length > MOST_BODY_BYTES:
            self.send_error(403)
            return
        word = json.loads(self.rfile.read(length) or b"{}")
        if self.path == "/state":
            self._send(json.dumps(self.meeting.state(word | {"me": self.client_address[0]})).encode())
        else:
            self.meeting.torrent(word["path"], base64.b64decode(word["torrent"]))
            self._send(b"{}")

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
