"""A forward proxy that asks for a user and a password, and sends every request on to one hub."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@contextmanager
def serve(hub: str, credentials: str) -> Iterator[tuple[str, list[int]]]:
    """Its address, and the sizes of the answers that went through it."""
    seen: list[int] = []
    wanted = f"Basic {base64.b64encode(credentials.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Silent."""

        def do_GET(self) -> None:
            if self.headers.get("Proxy-Authorization") != wanted:
                self.send_response(407)
                self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            target = urlsplit(self.path)
            connection = http.client.HTTPConnection(urlsplit(hub).netloc)
            headers = {name: value for name, value in self.headers.items() if not name.startswith("Proxy")}
            connection.request("GET", target._replace(scheme="", netloc="").geturl(), headers=headers)
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            while chunk := answer.read(1 << 16):
                self.wfile.write(chunk)
                seen.append(len(chunk))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", seen
        server.shutdown()
