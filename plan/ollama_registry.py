"""Models of Ollama's registries: what a name is there, its manifest, and the layers that make it up."""

import hashlib
import json
from collections.abc import Iterable

import httpx

from plan import web
from plan.errors import PlanError
from plan.lock import Tag

# What Ollama itself asks for.
ACCEPT = "application/vnd.docker.distribution.manifest.v2+json"
TIMEOUT_SECONDS = 30.0


def path(name: str) -> str:
    """registry/namespace/model/tag of a name as one writes it, in its own letters.

    Source: Ollama's types/model/name.go.
    """
    model, _, tag = name.partition(":")
    parts = model.split("/")
    return "/".join([*["registry.ollama.ai", "library"][: 3 - len(parts)], *parts, tag or "latest"])


def url(name: str, kind: str = "manifests", digest: str = "") -> str:
    """Where its manifest is; or what a digest stands for there, one of its "manifests" or "blobs"."""
    registry, namespace, model, tag = path(name).split("/")
    return f"https://{registry}/v2/{namespace}/{model}/{kind}/{digest or tag}"


def listed(name: str, proxy: str | None = None, transport: httpx.BaseTransport | None = None) -> Tag:
    """What its registry has under a name now.

    Args:
        name: as in qwen2.5:7b.
        proxy: URL of the proxy that Ollama uses too.
        transport: how requests travel, where not over the network.

    Raises:
        PlanError: the registry cannot be reached, or has no such model.
    """
    address = url(name)
    try:
        with web.client(proxy=proxy, transport=transport, timeout=TIMEOUT_SECONDS) as client:
            answer = client.get(address, headers={"Accept": ACCEPT})
    except httpx.HTTPError as error:
        raise PlanError(
            [f"{address} cannot be reached ({error}). Set ollama.https_proxy, or lock elsewhere."]
        ) from None
    if answer.status_code != httpx.codes.OK:
        raise PlanError([f"{address} answered {answer.status_code}. Correct the model's name."])
    try:
        manifest = json.loads(answer.content)
        layers = {layer["digest"]: layer["size"] for layer in (manifest["config"], *manifest["layers"])}
    except (ValueError, KeyError, TypeError):
        raise PlanError([f"{address} is no manifest of a model. Correct the model's name."]) from None
    digest = hashlib.sha256(answer.content).hexdigest()
    return Tag(made_by=f"manifest of {address.partition('/v2/')[0]}", manifest=digest, layers=layers)


def digest(layers: Iterable[str]) -> str:
    """One sha256 for a set of layers, as `templates/ollama/ollama_models.sh` makes it too."""
    return hashlib.sha256("".join(f"{layer}\n" for layer in sorted({*layers})).encode()).hexdigest()
