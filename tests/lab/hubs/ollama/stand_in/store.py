"""$OLLAMA_MODELS: names, manifests, blobs, and how models get in and out."""

from __future__ import annotations

import hashlib
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
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

    def create(self, name: Name, body: Json) -> None:
        """A model from another one of the store, or from uploaded files, with layers of its own."""
        if body.get("from"):
            base = self.manifest(Name(body["from"])) or {"config": None}
            if not base["config"]:
                raise OSError(f"model '{body['from']}' not found")
        else:
            (digest,) = body["files"].values()
            base = {"config": self.add_layer("config", "{}"), "layers": [self.layer("model", digest)]}
        kept = [part for part in base["layers"] if part["mediaType"].rpartition(".")[2] not in body]
        own = [
            self.add_layer(kind, body[kind]) for kind in ("system", "template", "params") if body.get(kind)
        ]
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(json.dumps(base | {"layers": [*kept, *own]}))

    def add_layer(self, kind: str, text: str) -> Json:
        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        self.blob(digest).write_text(text)
        return self.layer(kind, digest)

    def layer(self, kind: str, digest: str) -> Json:
        size = self.blob(digest).stat().st_size
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": size}

    def text(self, name: Name, kind: str) -> str:
        """The layer of a kind, as text."""
        for part in layers(self.manifest(name) or {}):
            if part["mediaType"].endswith(f".{kind}"):
                return self.blob(part["digest"]).read_text()
        return ""

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
