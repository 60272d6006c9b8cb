"""The command line."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .server import serve
from .store import Json, listening, version


def ask(method: str, path: str, body: Json | bytes | None = None) -> Iterator[Json]:
    """The running server's answers, line by line."""
    host, port = listening()
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{host}:{port}{path}", data, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            for line in response:
                yield json.loads(line)
    except urllib.error.HTTPError as error:
        yield dict(json.loads(error.read()))
    except OSError:
        sys.exit("Error: could not connect to ollama server, run 'ollama serve' to start it")


def show(lines: Iterator[Json], word: str, stream: TextIO = sys.stderr) -> None:
    for line in lines:
        if "error" in line:
            sys.exit(f"Error: {line['error']}")
        print(line.get(word) or "", file=stream)


def create(name: str, modelfile: Path) -> None:
    """Reads the words FROM, SYSTEM, TEMPLATE and PARAMETER; sends a file that FROM names."""
    body: Json = {"model": name}
    values = r'(?mi)^(from|system|template|parameter)\s+(?:"""([\s\S]*?)"""|([^\n]*))$'
    for word, quoted, plain in re.findall(values, modelfile.read_text()):
        key = "params" if word.lower() == "parameter" else word.lower()
        body[key] = body.get(key, "") + (quoted or plain)
    if body["from"].startswith("/"):
        data = Path(body.pop("from")).read_bytes()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        list(ask("POST", f"/api/blobs/{digest}", data))
        body["files"] = {"model.gguf": digest}
    show(ask("POST", "/api/create", body), "status")


def main() -> None:
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["pull", name]:
            show(ask("POST", "/api/pull", {"model": name}), "status")
        case ["create", name, "-f", modelfile]:
            create(name, Path(modelfile))
        case ["run", name, prompt]:
            show(ask("POST", "/api/generate", {"model": name, "prompt": prompt}), "response", sys.stdout)
        case ["show", name]:
            show(ask("POST", "/api/show", {"model": name}), "system", sys.stdout)
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
            sys.exit("usage: ollama serve|pull|create|run|show|list|ps|rm|-v")
