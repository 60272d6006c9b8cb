"""The lab's servers in one process: the ModelScope stand-in and static files."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from tests.lab.hubs.files import FileHandler
from tests.lab.hubs.modelscope import ModelScopeHandler
from tests.lab.hubs.wire import RequestLog, StandInServer

MODELSCOPE_PORT = 9100
FILES_PORT = 9200
POLL_SECONDS = 0.05  # how soon a server notices that it should stop


def start(root: Path, address: str, *ports: int) -> list[StandInServer]:
    """Listen on both ports and answer from threads; raises OSError where a port is taken.

    `ports` (ModelScope's, the files') differ from the defaults only in tests; 0 means any free port.
    """
    log = RequestLog(root / "requests.jsonl")
    handlers = (ModelScopeHandler, FileHandler)
    servers: list[StandInServer] = []
    for handler, port in zip(handlers, ports or (MODELSCOPE_PORT, FILES_PORT), strict=True):
        servers.append(StandInServer((address, port), handler, root, log))
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
    return servers


def serve(root: Path, address: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    servers = start(root, address)
    stopped.wait()
    for server in servers:
        server.shutdown()
        server.server_close()
