"""A hub that knows a commit of every model, for deploys that download nothing; in ModelScope's words."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from plan.models_host import Pin, wanted
from plan.sections import Settings


def commit_of(model: str, revision: str = "master") -> str:
    """The commit that this hub names."""
    return hashlib.sha1(f"{model}@{revision}".encode(), usedforsecurity=False).hexdigest()


def pins(settings: Settings) -> dict[tuple[str, str], Pin]:
    """What a deploy learns from it."""
    return {each: Pin(commit_of(*each), url()) for each in wanted(settings)}


@functools.cache
def url() -> str:
    """Where it listens, from the first call to the end of the tests."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def answer(model: str, revision: str = "master") -> str:
    """The body of its answer."""
    return naming(commit_of(model, revision))


def naming(commit: str) -> str:
    """The body of an answer with this commit."""
    commits = [{"Id": commit, "Message": "newest"}]
    return json.dumps({"Code": 200, "Success": True, "Data": {"Commit": commits, "TotalCount": 1}})


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        found = re.match(r"/api/v1/models/([^/]+/[^/]+)/commits\?Ref=([^&]+)", self.path)
        body = (answer(found[1], found[2]) if found else "{}").encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
