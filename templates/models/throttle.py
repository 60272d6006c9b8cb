"""A bound on what this program and its children take from outside: an HTTP proxy on loopback that waits."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import threading
import time
from urllib.parse import SplitResult, unquote, urlsplit

CHUNK_BYTES = 1 << 16
VARIABLES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


def limit(rate_mbit: float) -> None:
    """From here on, HTTP goes through a proxy of ours that lets so many Mbit/s in."""
    upstream = next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None)
    ready = threading.Event()
    proxy = Proxy(rate_mbit * 1e6 / 8, upstream)
    threading.Thread(target=lambda: asyncio.run(proxy.run(ready)), daemon=True).start()
    ready.wait()
    for name in VARIABLES:
        os.environ[name] = f"http://127.0.0.1:{proxy.port}"
    for name in ("no_proxy", "NO_PROXY"):
        os.environ.pop(name, None)


class Proxy:
    """Forwards HTTP and tunnels; what comes back is shared out at a rate in bytes per second."""

    def __init__(self, rate: float, upstream: str | None) -> None:
        self.rate, self.upstream, self.port = rate, upstream, 0
        self._free_at = 0.0

    async def run(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await server.serve_forever()

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            head = await client.readuntil(b"\r\n\r\n")
            answer, forth = await self._connect(head, back)
            await asyncio.gather(self._pump(client, forth, False), self._pump(answer, back, True))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            back.close()

    async def _connect(
        self, head: bytes, back: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        method, target, version = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if self.upstream:
            proxy = urlsplit(self.upstream)
            reader, writer = await self._open(proxy.hostname or "", proxy.port or 80)
            request, rest = head.split(b"\r\n", 1)
            # the answer to one request; the next one brings its credentials anew
            rest = re.sub(rb"(?im)^((proxy-)?connection|proxy-authorization):.*\r\n", b"", rest)
            writer.write(request + b"\r\n" + credentials(proxy) + b"Connection: close\r\n" + rest)
        elif method == "CONNECT":
            host, _, port = target.rpartition(":")
            reader, writer = await self._open(host.strip("[]"), int(port))
            back.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            url = urlsplit(target)
            reader, writer = await self._open(url.hostname or "", url.port or 80)
            path = url._replace(scheme="", netloc="").geturl() or "/"
            rest = re.sub(rb"(?im)^(proxy-)?connection:.*\r\n", b"", head.split(b"\r\n", 1)[1])
            # one request a connection: the next may go to another server
            writer.write(f"{method} {path} {version}\r\nConnection: close\r\n".encode("latin-1") + rest)
        return reader, writer

    @staticmethod
    async def _open(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(host, port, limit=CHUNK_BYTES)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, bounded: bool) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                if bounded:
                    await self._wait(len(data))
                target.write(data)
                await target.drain()
        finally:
            target.close()

    async def _wait(self, count: int) -> None:
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + count / self.rate
        await asyncio.sleep(self._free_at - now)


def credentials(proxy: SplitResult) -> bytes:
    """The header that a proxy wants whose URL has a user and a password."""
    if not proxy.username:
        return b""
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return b"Proxy-Authorization: Basic " + base64.b64encode(pair) + b"\r\n"
