"""Registries as Ollama pulls from: manifests by tag, blobs by digest, as static files.

    REGISTRY/v2/NAMESPACE/MODEL/manifests/TAG
    REGISTRY/v2/NAMESPACE/MODEL/blobs/sha256:DIGEST

The weights are noise with GGUF's first bytes: the stand-in answers without reading them.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

# As small as a download that a test can cut may be.
WEIGHTS_BYTES = 4 * 1024**2
MODELS = {
    "registry.ollama.ai/v2/library/qwen2.5": ("0.5b", "latest"),
    "modelscope.cn/v2/Qwen/Qwen2.5-0.5B-Instruct-GGUF": ("Q4_K_M", "latest"),
}
KIND = "application/vnd.ollama.image."


def write(folder: Path) -> None:
    """All models below `folder`."""
    for repository, tags in MODELS.items():
        blobs, manifests = folder / repository / "blobs", folder / repository / "manifests"
        for directory in (blobs, manifests):
            directory.mkdir(parents=True)
        manifest = json.dumps(manifest_of(repository, blobs))
        for tag in tags:
            (manifests / tag).write_text(manifest)


def manifest_of(repository: str, blobs: Path) -> dict[str, object]:
    """A manifest in the shape of the real ones; writes the files that it names."""
    weights = b"GGUF" + random.Random(repository).randbytes(WEIGHTS_BYTES - 4)
    configuration = {
        "model_format": "gguf",
        "model_family": "qwen2",
        "model_type": "0.5B",
        "file_type": "Q4_K_M",
    }
    layers = {
        f"{KIND}model": weights,
        f"{KIND}template": b"{{ .System }}{{ .Prompt }}",
        f"{KIND}license": b"A stand-in: these weights are noise.",
    }
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": layer(
            "application/vnd.docker.container.image.v1+json", json.dumps(configuration).encode(), blobs
        ),
        "layers": [layer(kind, data, blobs) for kind, data in layers.items()],
    }


def layer(kind: str, data: bytes, blobs: Path) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    (blobs / digest).write_bytes(data)
    return {"mediaType": kind, "digest": digest, "size": len(data)}
