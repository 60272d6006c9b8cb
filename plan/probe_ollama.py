"""What is of Ollama on a host, from the probe's block of that name."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class InstalledOllama:
    """Ollama on a host: whole versions, and the models of its store.

    Attributes:
        torn: directories beside the versions, of one that is being unpacked or was removed in part.
        store: the directory of what follows.
        old_stores: directories that the store was moved from, and that still have models.
        models: names as `whole_name` gives them, of models whose every file is there, by size.
        layers: name of a model -> the files that its manifest names.
        named: every name that has a manifest -> the name that Ollama's commands take, as it was pulled.
        created: name of a model that was made from a Modelfile -> that Modelfile's digest.
        written: the same name -> how the settings wrote it then.
        damaged: files of the store with another size than a manifest says; Ollama takes them as they are.
        unused: files of the store that no manifest names: what a cut pull left, or a removed model.
        stored_bytes: what its files occupy; `unused_bytes`: those that no manifest names.
    """

    versions: frozenset[str] = frozenset()
    torn: frozenset[str] = frozenset()
    store: str = "/srv/models/ollama"
    old_stores: tuple[str, ...] = ()
    models: frozenset[str] = frozenset()
    layers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    created: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    damaged: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
    stored_bytes: int = 0
    unused_bytes: int = 0


def whole_name(name: str) -> str:
    """A model's whole name as Ollama understands it: registry/namespace/model/tag, in small letters.

    Source: Ollama's types/model/name.go; registry.ollama.ai is called ollama.com in newer stores.
    """
    path, _, tag = name.lower().partition(":")
    parts = path.split("/")
    registry, namespace, model = ["registry.ollama.ai", "library"][: 3 - len(parts)] + parts
    registry = "registry.ollama.ai" if registry == "ollama.com" else registry
    return "/".join((registry, namespace, model, tag or "latest"))


def blobs(digests: Iterable[str]) -> frozenset[str]:
    """What files of these digests are called in a store."""
    return frozenset(digest.replace(":", "-") for digest in digests)


def parse(lines: Iterable[str]) -> InstalledOllama:
    """The block's lines: `version NAME`, `torn NAME`, `store PATH`, `old_store PATH`, then of that store
    `blob BYTES NAME BLOCKS`, `manifest PATH JSON`, `created NAME DIGEST`.
    """
    versions, torn, named, manifests, sizes, created, written = set(), set(), {}, {}, {}, {}, {}
    store, old_stores, occupied = InstalledOllama.store, [], {}
    for line in lines:
        kind, _, value = line.partition(" ")
        if kind == "version":
            versions.add(value)
        elif kind == "torn":
            torn.add(value)
        elif kind == "store":
            store = value
        elif kind == "old_store":
            old_stores.append(value)
        elif kind == "blob":
            size, name, *blocks = value.split(" ")
            sizes[name] = int(size)
            # a pull that goes on gives its file the whole size at once
            occupied[name] = int(blocks[0]) * 512 if blocks else int(size)
        elif kind == "created":
            name, _, digest = value.partition(" ")
            created[whole_name(name)] = digest
            written[whole_name(name)] = name
        elif kind == "manifest":
            path, _, text = value.partition(" ")
            model, _, tag = path.rpartition("/")
            name = whole_name(f"{model}:{tag}")
            named[name] = f"{model}:{tag}"
            manifests[name] = dict(_layers(text))
    wanted = {blob: size for layers in manifests.values() for blob, size in layers.items()}
    unused = frozenset(sizes.keys() - wanted.keys())
    return InstalledOllama(
        versions=frozenset(versions),
        torn=frozenset(torn),
        store=store,
        old_stores=tuple(old_stores),
        stored_bytes=sum(occupied.values()),
        unused_bytes=sum(occupied[name] for name in unused),
        models=frozenset(
            name for name, layers in manifests.items() if layers and layers.items() <= sizes.items()
        ),
        layers={name: frozenset(layers) for name, layers in manifests.items()},
        named=named,
        created=created,
        written=written,
        damaged=frozenset(blob for blob, size in wanted.items() if sizes.get(blob, size) != size),
        unused=unused,
    )


def _layers(text: str) -> Iterator[tuple[str, int]]:
    """The files that a manifest names: name in the store, bytes. One that cannot be read names none."""
    try:
        manifest: Any = json.loads(text)
    except ValueError:
        return
    if isinstance(manifest, dict):
        for layer in (manifest.get("config"), *(manifest.get("layers") or ())):
            if isinstance(layer, dict) and layer.get("digest"):
                yield str(layer["digest"]).replace(":", "-"), int(layer.get("size", -1))
