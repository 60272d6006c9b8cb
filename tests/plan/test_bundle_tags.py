"""Models of Ollama's registries in a bundle: as Ollama's store has them, each file by its hash."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from plan import bundle, lock, ollama_registry, web
from plan.__main__ import main
from plan.lock import Host, Lock
from tests.lab.hubs.ollama import registry
from tests.plan import bundles
from tests.plan.bundles import Fleet

SMALL, LATEST = "qwen2.5:0.5b", "qwen2.5:latest"
REGISTRY = "registry.ollama.ai/v2/library/qwen2.5"
MANIFESTS = "ollama-models/manifests/registry.ollama.ai/library/qwen2.5"


class Elsewhere(httpx.BaseTransport):
    """Asks a web server of ours for what is asked of any other, by plain HTTP."""

    def __init__(self, url: str) -> None:
        self.url = httpx.URL(url)
        self.inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "https":
            path = f"/{request.url.host}{request.url.path}"
            request.url = self.url.copy_with(path=path)
        return self.inner.handle_request(request)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Two hosts, one of which has two names for the model; a lock of nothing else."""
    with bundles.served(tmp_path) as made:
        registry.write(made.root)
        monkeypatch.setattr(
            web, "client", lambda **given: httpx.Client(**{"transport": Elsewhere(made.url), **given})
        )
        tag = ollama_registry.listed(SMALL, transport=Elsewhere(made.url))
        held = Lock(
            hosts={"gpu-1": Host(tags=[SMALL]), "gpu-2": Host(tags=[SMALL, LATEST])},
            tag={SMALL: tag, LATEST: tag},
        )
        made.lock.write_text(lock.render(held, "fleet.py"))
        # whose sources are of no interest here
        (tmp_path / "fleet.py").unlink()
        yield made


def collect(fleet: Fleet, *words: str) -> int:
    return main(["bundle", str(fleet.lock), str(fleet.folder / "out"), *words])


def index(fleet: Fleet) -> dict[str, str]:
    return bundle.parse((fleet.folder / "out" / bundle.INDEX).read_text())


def asked(fleet: Fleet) -> list[str]:
    """The last parts of what was asked for of the registry's files."""
    return [path.rpartition("/")[2] for path in fleet.asked() if "/blobs/" in path or "/manifests/" in path]


def test_it_lies_there_as_in_a_store_and_comes_once(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    asked_before = len(asked(fleet))
    assert collect(fleet, "--only", "ollama-models") == 0
    held = lock.read(fleet.lock).tag[SMALL]
    assert index(fleet) == {
        f"{MANIFESTS}/0.5b": held.manifest,
        f"{MANIFESTS}/latest": held.manifest,
        **{f"ollama-models/blobs/sha256-{layer[7:]}": layer[7:] for layer in held.layers},
    }
    for path, digest in index(fleet).items():
        assert hashlib.sha256((fleet.folder / "out" / path).read_bytes()).hexdigest() == digest
    # the manifest is the same under both names
    assert sorted(asked(fleet)[asked_before:]) == sorted(["0.5b", *held.layers])
    assert "ollama-models      5 files      4.0 MiB\n" in capsys.readouterr().out
    assert collect(fleet) == 0
    assert len(asked(fleet)) == asked_before + 5


def test_each_host_takes_its_own_though_files_are_shared(fleet: Fleet) -> None:
    held = lock.read(fleet.lock)
    paths = {name: {file.path for file in bundle.of_host(held, name)} for name in held.hosts}
    assert paths["gpu-2"] == {file.path for file in bundle.files(held)}
    assert paths["gpu-2"] - paths["gpu-1"] == {f"{MANIFESTS}/latest"}


def test_a_cut_download_goes_on_where_it_stopped(fleet: Fleet) -> None:
    fleet.fault(cut=1_500_000, match="/blobs/")
    assert collect(fleet) == 0
    rows = [json.loads(line) for line in (fleet.folder / "requests.jsonl").read_text().splitlines()]
    sent = sum(row["sent_bytes"] for row in rows if "/blobs/" in row["path"])
    assert sent < 1.2 * registry.WEIGHTS_BYTES


def test_a_name_that_stands_for_something_else_by_now_is_asked_for_by_its_hash(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    manifests = fleet.root / REGISTRY / "manifests"
    before = (manifests / "0.5b").read_text()
    for name in ("0.5b", "latest"):
        (manifests / name).write_text(before.replace("schemaVersion", "other"))
    assert collect(fleet) == 1
    said = capsys.readouterr().err
    assert f"bundle: {MANIFESTS}/0.5b: https://{REGISTRY}/manifests/0.5b: other bytes than the lock" in said
    digest = hashlib.sha256(before.encode()).hexdigest()
    (manifests / f"sha256:{digest}").write_text(before)
    assert collect(fleet) == 0
    assert index(fleet)[f"{MANIFESTS}/0.5b"] == digest


def test_a_layer_with_other_bytes_is_refused_by_name(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    blobs = fleet.root / REGISTRY / "blobs"
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    other = largest.with_suffix(".new")
    shutil.copy(largest, other)
    with other.open("r+b") as stream:
        stream.write(b"0")
    other.replace(largest)
    assert collect(fleet) == 1
    path = f"ollama-models/blobs/{largest.name.replace(':', '-')}"
    assert f"bundle: {path}: " in capsys.readouterr().err
    assert path not in index(fleet)
