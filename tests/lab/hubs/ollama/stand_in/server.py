"""The HTTP API."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import urllib.error
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from .store import Json, Name, Store, listening, version

WORDS = "上海 北京 模型 正常 回答 很好 one two three four five"


class Handler(BaseHTTPRequestHandler):
    """The HTTP API."""

    protocol_version = "HTTP/1.1"
    store: Store
    loaded: set[str]
    pulling = threading.Lock()

    def do_GET(self) -> None:
        store = self.store
        match self.path:
            case "/":
                self.send(200, b"Ollama is running", "text/plain")
            case "/api/version":
                self.send_json(200, {"version": version()})
            case "/api/tags":
                self.send_json(200, {"models": [store.details(name) for name in store.names()]})
            case "/api/ps":
                models = [store.details(Name(name)) for name in sorted(self.loaded)]
                self.send_json(200, {"models": models})
            case "/v1/models":
                data = [
                    {"id": str(name), "object": "model", "owned_by": name.namespace} for name in store.names()
                ]
                self.send_json(200, {"object": "list", "data": data})
            case _:
                self.send(404, b"404 page not found", "text/plain")

    do_HEAD = do_GET  # noqa: N815  (http.server's name)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/api/blobs/"):
            self.store.blob(self.path.rpartition("/")[2]).write_bytes(data)
            self.send(201, b"", "text/plain")
            return
        body = json.loads(data or b"{}")
        name = Name(body.get("model") or body.get("name") or "")
        if self.path == "/api/pull":
            self.pull(name, body.get("stream", True))
        elif self.path == "/api/create":
            try:
                self.store.create(name, body)
            except OSError as failure:
                self.send_json(400, {"error": str(failure)})
                return
            self.send_json(200, {"status": "success"})
        elif self.store.manifest(name) is None:
            error = f"model '{name}' not found"
            openai = {"error": {"message": error, "type": "not_found_error"}}
            self.send_json(404, openai if self.path.startswith("/v1/") else {"error": error})
        elif self.path == "/api/show":
            system = self.store.text(name, "system")
            self.send_json(200, self.store.details(name) | {"system": system, "capabilities": ["completion"]})
        elif not self.store.whole(name):
            self.send_json(500, {"error": "unable to load model"})
        elif self.path in ("/api/generate", "/api/chat"):
            self.loaded.add(str(name))
            text = noise(body)
            chat = self.path == "/api/chat"
            said: Json = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
            self.send_json(200, {"model": str(name), "done": True, "done_reason": "stop", **said})
        elif self.path in ("/v1/chat/completions", "/v1/completions"):
            self.loaded.add(str(name))
            self.complete(name, body)
        else:
            self.send(404, b"404 page not found", "text/plain")

    def do_DELETE(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        name = Name(body.get("model") or body.get("name") or "")
        if self.store.manifest(name) is None:
            self.send_json(404, {"error": f"model '{name}' not found"})
            return
        try:
            self.store.remove(name)
        except OSError as error:
            self.send_json(500, {"error": str(error)})
            return
        self.send(200, b"", "text/plain")

    def pull(self, name: Name, stream: bool) -> None:
        lines: list[Json] = []
        if stream:
            self.begin_chunks("application/x-ndjson")
        try:
            with self.pulling:
                for line in self.store.pull(name):
                    lines.append(line)
                    if stream:
                        self.chunk(json.dumps(line).encode() + b"\n")
        except (OSError, ValueError) as failure:
            missing = isinstance(failure, urllib.error.HTTPError) and failure.code == 404
            lines.append({"error": f"pull model manifest: {'file does not exist' if missing else failure}"})
            if stream:
                self.chunk(json.dumps(lines[-1]).encode() + b"\n")
        if stream:
            self.chunk(b"")
        else:
            self.send_json(500 if "error" in lines[-1] else 200, lines[-1])

    def complete(self, name: Name, body: Json) -> None:
        chat = self.path == "/v1/chat/completions"
        text, kind = noise(body), "chat.completion" if chat else "text_completion"
        head = {"id": "chatcmpl-1", "created": int(time.time()), "model": body["model"]}
        if not body.get("stream"):
            said: Json = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choices = [{"index": 0, "finish_reason": "stop", **said}]
            self.send_json(200, {**head, "object": kind, "choices": choices})
            return
        self.begin_chunks("text/event-stream")
        for word in text.split():
            part: Json = {"delta": {"role": "assistant", "content": word}} if chat else {"text": word}
            event = {**head, "object": f"{kind}.chunk", "choices": [{"index": 0, **part}]}
            self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def begin_chunks(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def send_json(self, status: int, body: Json) -> None:
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        self.send(status, data, "application/json")

    def send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        print(f"[GIN] {format % args}", file=sys.stderr, flush=True)


class Server(ThreadingHTTPServer):
    """Asks no name server what its address is called, as the real one does not either."""

    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


def noise(body: Json) -> str:
    words = random.Random(json.dumps(body, sort_keys=True)).choices(WORDS.split(), k=6)
    return " ".join(words)


def serve() -> None:
    key = Path.home() / ".ollama" / "id_ed25519"
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        key.write_text("a stand-in's key\n")
    Handler.store, Handler.loaded = Store(), set()
    if not os.environ.get("OLLAMA_NOPRUNE"):
        Handler.store.prune()
    address = listening()
    print(f"Listening on {address[0]}:{address[1]} (version {version()})", file=sys.stderr, flush=True)
    Server(address, Handler).serve_forever()
