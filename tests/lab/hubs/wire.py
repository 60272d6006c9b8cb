"""HTTP as both stand-in servers speak it: byte ranges, JSON, switchable faults, a request log."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from pydantic import ValidationError

from tests.lab.hubs.faults import Faults, FaultSwitch

CHUNK_BYTES = 64 * 1024
MAX_BODY_BYTES = 1024 * 1024


@dataclass
class RequestLog:
    """One JSON line per answered request, so that tests can count what a client really asked for."""

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, **entry: object) -> None:
        line = json.dumps({"time": round(time.time(), 3), **entry})
        with self._lock, self.path.open("a") as log:
            log.write(line + "\n")


@dataclass(frozen=True)
class Content:
    """A file as it is sent: `name` is what the client calls it, `etag` changes with its bytes."""

    path: Path
    name: str
    etag: str
    content_type: str = "application/octet-stream"


class StandInServer(ThreadingHTTPServer):
    """One listening port: a thread per connection, its own faults, a log shared with the others."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[StandInHandler],
        root: Path,
        log: RequestLog,
    ) -> None:
        self.root = root
        self.log = log
        self.faults = FaultSwitch()
        self._answers = 0
        self._changed = threading.Condition()
        super().__init__(address, handler)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """A request from its arrival to its line in the log, which comes after the client has its bytes."""
        with self._changed:
            self._answers += 1
        try:
            yield
        finally:
            with self._changed:
                self._answers -= 1
                self._changed.notify_all()

    def rest(self, timeout_seconds: float = 30) -> None:
        """Waits until all that was answered is in the log."""
        with self._changed:
            self._changed.wait_for(lambda: self._answers == 0, timeout_seconds)


class StandInHandler(BaseHTTPRequestHandler):
    """Base of both servers: `answer()` is what a subclass adds."""

    protocol_version = "HTTP/1.1"
    server_version = "bringup-lab-stand-in"
    timeout = 300
    server: StandInServer
    faults: Faults  # those that hold for the request at hand

    def answer(self) -> None:
        """Answer a GET or HEAD request."""
        raise NotImplementedError

    def answer_post(self, body: bytes) -> None:
        """Answer a POST request other than `/_lab`."""
        self.send_json(405, {"error": f"POST is not served at {self.path}"})

    # -- what http.server calls -------------------------------------------------------------------

    def do_GET(self) -> None:
        with self.server.answering():
            self._get()

    do_HEAD = do_GET  # noqa: N815  (http.server's name)

    def _get(self) -> None:
        self.faults = self.server.faults.for_url(self.url)
        if self.path == "/_lab":
            self.send_json(200, self.server.faults.current().model_dump(exclude_defaults=True))
            return
        if self.faults.delay:
            time.sleep(self.faults.delay)
        status = self.server.faults.take_status(self.url)
        if status is not None:
            self.send_json(status, {"Code": status, "Success": False, "Message": "a fault was switched on"})
            return
        self.answer()

    def do_POST(self) -> None:
        self.faults = self.server.faults.for_url(self.url)
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self.send_json(413, {"error": f"the body is larger than {MAX_BODY_BYTES} bytes"})
            return
        body = self.rfile.read(length)
        if self.path == "/_lab":
            self._switch_faults(body)
        else:
            self.answer_post(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: requests.jsonl is the log."""

    # -- helpers for subclasses -------------------------------------------------------------------

    @property
    def url(self) -> str:
        return unquote(self.path)

    def send_json(self, status: int, body: object) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.note(status, len(data))

    def send_content(self, content: Content) -> None:
        """Send a file, or the part of it that `Range` asks for."""
        size = content.path.stat().st_size
        wanted = None if self.faults.no_range else self.headers.get("Range")
        span = byte_span(wanted, size)
        if span is None:
            self._send_unsatisfiable(size)
            return
        status = 206 if wanted else 200
        self.send_response(status)
        self.send_header("Content-Type", content.content_type)
        self.send_header("Content-Length", str(len(span)))
        self.send_header("ETag", f'"{content.etag}"')
        if not self.faults.no_range:
            self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {span.start}-{span.stop - 1}/{size}")
        self.end_headers()
        sent = 0 if self.command == "HEAD" else self._send_span(content, span)
        self.note(status, sent)

    def note(self, status: int, sent_bytes: int) -> None:
        self.server.log.write(
            port=self.server.server_port,
            method=self.command,
            path=self.path,
            range=self.headers.get("Range"),
            client=self.client_address[0],
            token=bool(self.headers.get("Authorization") or "m_session_id" in self.headers.get("Cookie", "")),
            agent=self.headers.get("User-Agent", "")[:80],
            status=status,
            sent_bytes=sent_bytes,
        )

    # -- inside -----------------------------------------------------------------------------------

    def _switch_faults(self, body: bytes) -> None:
        try:
            faults = Faults.model_validate_json(body or b"{}")
        except ValidationError as error:
            self.send_json(400, {"error": str(error)})
            return
        self.server.faults.replace(faults)
        self.send_json(200, faults.model_dump(exclude_defaults=True))

    def _send_unsatisfiable(self, size: int) -> None:
        self.send_response(416)
        self.send_header("Content-Range", f"bytes */{size}")
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.note(416, 0)

    def _send_span(self, content: Content, span: range) -> int:
        """Send these bytes of a file, with faults; returns how many went, also to a client that left."""
        limit = len(span) if self.faults.cut is None else min(self.faults.cut, len(span))
        self.close_connection |= limit < len(span)
        sent = 0
        try:
            for chunk in self._chunks(content, span.start, limit):
                self.wfile.write(chunk)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        return sent

    def _chunks(self, content: Content, start: int, count: int) -> Iterator[bytes]:
        """The bytes as they go out: at the fault's rate, with the fault's flipped bit."""
        rate = self.faults.rate
        chunk_bytes = CHUNK_BYTES if rate is None else max(1, min(CHUNK_BYTES, rate // 10))
        flip = self.server.faults.take_corruption(content.name) if self.faults.corrupt else None
        began = time.monotonic()
        position = start
        with content.path.open("rb") as file:
            file.seek(start)
            while position < start + count:
                chunk = bytearray(file.read(min(chunk_bytes, start + count - position)))
                if not chunk:
                    raise OSError(f"{content.path} became shorter while it was sent")
                if flip is not None and position <= flip < position + len(chunk):
                    chunk[flip - position] ^= 1
                yield bytes(chunk)
                position += len(chunk)
                if rate:
                    time.sleep(max(0.0, (position - start) / rate - (time.monotonic() - began)))


def byte_span(header: str | None, size: int) -> range | None:
    """The bytes that a `Range` header asks for (RFC 9110, one range); None when they lie outside the file."""
    if header is None:
        return range(size)
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if match is None or match[1] == match[2] == "":
        return range(size)
    if match[1] == "":
        return range(max(0, size - int(match[2])), size)
    start = int(match[1])
    stop = min(int(match[2]) + 1, size) if match[2] else size
    return range(start, stop) if start < stop else None
