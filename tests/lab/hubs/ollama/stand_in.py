"""A stand-in for Ollama: its commands, its HTTP API, its store, its pulls; no inference, it says noise.

    ollama serve | pull MODEL | list | ps | rm MODEL | -v

What it stands in for: names, the layout of the store (manifests/REGISTRY/NAMESPACE/MODEL/TAG, blobs/sha256-X,
-partial while a pull is under way), pulls that go on where they were cut, the pruning of partial files at a
start unless OLLAMA_NOPRUNE is set, the key pair in $HOME, the environment's settings. Whatever the registry,
it asks the one address that the archive came with, by plain HTTP.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WORDS = "上海 北京 模型 正常 回答 很好 one two three four five"
CHUNK_BYTES = 64 * 1024
Json = dict[str, Any]


def version() -> str:
    return (HERE / "version").read_text()


def listening() -> tuple[str, int]:
    host, _, port = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").removeprefix("http://").rpartition(":")
    return host.strip("[]"), int(port)


class Name:
    """A model's name: [[registry/]namespace/]model[:tag]."""

    def __init__(self, text: str) -> None:
        path, _, tag = text.partition(":")
        parts = path.split("/")
        self.registry, self.namespace, self.model = ["registry.ollama.ai", "library"][
            : 3 - len(parts)
        ] + parts
        self.tag = tag or "latest"

    def __str__(self) -> str:
        parts = [self.registry, self.namespace, self.model]
        short = parts[2:] if parts[:2] == ["registry.ollama.ai", "library"] else parts
        return f"{'/'.join(short)}:{self.tag}"

    @property
    def url(self) -> str:
        registries = (HERE / "registries").read_text()
        return f"{registries}/{self.registry}/v2/{self.namespace}/{self.model}"


class Store:
    """$OLLAMA_MODELS on disk."""

    def __init__(self) -> None:
        self.root = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
        for folder in ("manifests", "blobs"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def prune(self) -> None:
        for partial in (self.root / "blobs").glob("*-partial"):
            partial.unlink()

    def path(self, name: Name) -> Path:
        return self.root / "manifests" / name.registry / name.namespace / name.model / name.tag

    def blob(self, digest: str) -> Path:
        return self.root / "blobs" / digest.replace(":", "-")

    def names(self) -> list[Name]:
        paths = sorted(path for path in (self.root / "manifests").glob("*/*/*/*") if path.is_file())
        return [Name("/".join(path.parts[-4:-1]) + f":{path.name}") for path in paths]

    def manifest(self, name: Name) -> Json | None:
        try:
            return dict(json.loads(self.path(name).read_text()))
        except FileNotFoundError:
            return None

    def whole(self, name: Name) -> bool:
        manifest = self.manifest(name)
        return bool(manifest) and all(
            self.blob(layer["digest"]).is_file()
            and self.blob(layer["digest"]).stat().st_size == layer["size"]
            for layer in layers(manifest or {})
        )

    def details(self, name: Name) -> Json:
        manifest = self.manifest(name) or {}
        return {
            "name": str(name),
            "model": str(name),
            "modified_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.path(name).stat().st_mtime)),
            "size": sum(layer["size"] for layer in layers(manifest)),
            "digest": hashlib.sha256(self.path(name).read_bytes()).hexdigest(),
            "details": {"format": "gguf", "family": "qwen2", "quantization_level": "Q4_K_M"},
        }

    def remove(self, name: Name) -> None:
        """The manifest goes, and each file that no other manifest names."""
        gone = layers(self.manifest(name) or {})
        self.path(name).unlink()
        kept = {layer["digest"] for other in self.names() for layer in layers(self.manifest(other) or {})}
        for layer in gone:
            if layer["digest"] not in kept:
                self.blob(layer["digest"]).unlink(missing_ok=True)

    def pull(self, name: Name) -> Iterator[Json]:
        """Brings every missing file, then the manifest; yields what /api/pull streams."""
        yield {"status": "pulling manifest"}
        with urllib.request.urlopen(f"{name.url}/manifests/{name.tag}", timeout=30) as response:
            text = response.read()
        for layer in layers(json.loads(text)):
            if not self.blob(layer["digest"]).exists():
                yield from self._pull_blob(name, layer)
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_bytes(text)
        yield {"status": "success"}

    def _pull_blob(self, name: Name, layer: Json) -> Iterator[Json]:
        digest, size = layer["digest"], layer["size"]
        partial = self.blob(f"{digest}-partial")
        told = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": size}
        have = partial.stat().st_size if partial.exists() else 0
        request = urllib.request.Request(f"{name.url}/blobs/{digest}", headers={"Range": f"bytes={have}-"})
        if have < size:
            with urllib.request.urlopen(request, timeout=30) as response, partial.open("ab") as file:
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
                    file.flush()
                    have += len(chunk)
                    yield told | {"completed": have}
        if hashlib.sha256(partial.read_bytes()).hexdigest() != digest.removeprefix("sha256:"):
            if have >= size:
                partial.unlink()
            raise OSError("digest mismatch, file must be downloaded again")
        partial.rename(self.blob(digest))


def layers(manifest: Json) -> list[Json]:
    return [part for part in (manifest.get("config"), *manifest.get("layers", ())) if part]


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
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        name = Name(body.get("model") or body.get("name") or "")
        if self.path == "/api/pull":
            self.pull(name, body.get("stream", True))
        elif self.store.manifest(name) is None:
            error = f"model '{name}' not found"
            openai = {"error": {"message": error, "type": "not_found_error"}}
            self.send_json(404, openai if self.path.startswith("/v1/") else {"error": error})
        elif self.path == "/api/show":
            self.send_json(200, self.store.details(name) | {"capabilities": ["completion"]})
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
        except (OSError, ValueError) as error:
            missing = isinstance(error, urllib.error.HTTPError) and error.code == 404
            lines.append({"error": f"pull model manifest: {'file does not exist' if missing else error}"})
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
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(address, Handler).serve_forever()


def ask(method: str, path: str, body: Json | None = None) -> Iterator[Json]:
    """The running server's answers, line by line."""
    host, port = listening()
    request = urllib.request.Request(
        f"http://{host}:{port}{path}", json.dumps(body).encode() if body else None, method=method
    )
    try:
        with urllib.request.urlopen(request) as response:
            for line in response:
                yield json.loads(line)
    except urllib.error.HTTPError as error:
        yield dict(json.loads(error.read()))
    except OSError:
        sys.exit("Error: could not connect to ollama server, run 'ollama serve' to start it")


def show(lines: Iterator[Json], word: str) -> None:
    for line in lines:
        if "error" in line:
            sys.exit(f"Error: {line['error']}")
        print(line.get(word) or "", file=sys.stderr)


def main() -> None:
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["pull", name]:
            show(ask("POST", "/api/pull", {"model": name}), "status")
        case ["rm", name]:
            show(ask("DELETE", "/api/delete", {"model": name}), "status")
        case ["list" | "ls"] | ["ps"]:
            path = "/api/ps" if sys.argv[1] == "ps" else "/api/tags"
            print(f"{'NAME':40} {'ID':14} SIZE")
            for model in next(ask("GET", path))["models"]:
                print(f"{model['name']:40} {model['digest'][:12]:14} {model['size'] / 1e6:.1f} MB")
        case ["-v" | "--version"]:
            print(f"ollama version is {version()} (a stand-in)")
        case _:
            sys.exit("usage: ollama serve | pull MODEL | list | ps | rm MODEL | -v")


if __name__ == "__main__":
    main()
