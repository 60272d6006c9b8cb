"""A small lock whose every file a web server has, to be collected into a bundle."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from plan import lock
from plan.lock import Archive, File, Host, Installer, Lock, Model, Package, Packages, Stack, Uv, Wheel
from tests.lab.hubs.wire import Content, RequestLog, StandInHandler, StandInServer
from tests.plan import wheel_index

COMMIT = "c" * 40
MODEL = "org/small"
SYSTEM = "debian12 x86_64"
WHEEL = "loose_a-1.0-py3-none-any.whl"
# Large enough to be cut in the middle.
WEIGHTS = bytes(range(256)) * 4096


class _Everything(StandInHandler):
    """Serves whatever is below its root, with ranges and faults."""

    def answer(self) -> None:
        path = self.server.root / urlsplit(self.url).path.lstrip("/")
        if path.is_dir():
            path /= "index.html"
        if not path.is_file():
            self.send_json(404, {})
            return
        kind = "text/html" if path.suffix == ".html" else "application/octet-stream"
        self.send_content(Content(path, path.name, f"{path.stat().st_size}", kind))


@dataclass
class Fleet:
    """A web server, and an inventory with a lock that names its files."""

    server: StandInServer
    root: Path
    url: str
    folder: Path

    @property
    def lock(self) -> Path:
        return self.folder / "fleet.lock"

    def fault(self, **switched: object) -> None:
        import httpx

        httpx.post(f"{self.url}/_lab", json=switched, trust_env=False).raise_for_status()

    def asked(self) -> list[str]:
        """What was asked for with GET so far."""
        self.server.rest()
        lines = (self.folder / "requests.jsonl").read_text().splitlines()
        return [row["path"] for row in map(json.loads, lines) if row["method"] == "GET"]


@contextmanager
def serving(root: Path, log: Path) -> Iterator[StandInServer]:
    """Serves a directory on loopback; a line for each request goes to the log."""
    server = StandInServer(("127.0.0.1", 0), _Everything, root, RequestLog(log))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def served(folder: Path) -> Iterator[Fleet]:
    """The fleet, its files being served."""
    root = folder / "origin"
    root.mkdir()
    with serving(root, folder / "requests.jsonl") as server:
        yield _fleet(server, folder)


def _fleet(server: StandInServer, folder: Path) -> Fleet:
    root, url = server.root, f"http://127.0.0.1:{server.server_port}"
    fleet = Fleet(server, root, url, folder)
    fleet.lock.write_text(lock.render(_lock(root, url), "fleet.py"))
    sources = {
        "wheels": f"{url}/simple",
        "conda_channel": f"{url}/channel",
        "ollama": f"{url}/ollama",
        "models": [f"mirror+{url}/models"],
    }
    (folder / "fleet.py").write_text(f"fleet = ['gpu-1', 'gpu-2']\n_sources = {sources!r}\n")
    (folder / "group_data").mkdir()
    (folder / "group_data" / "all.py").write_text(f"sources = {sources!r}\n")
    return fleet


def _lock(root: Path, url: str) -> Lock:
    wheel_index.publish(root, {"loose-a==1.0": [], "loose-b==1.0": [], "uv==0.13.9": []})
    stack = Stack(
        made_by="a test",
        python="3.12",
        platform="x86_64-manylinux_2_36",
        installer=Installer(url=f"{url}/miniforge.sh", sha256=_put(root / "miniforge.sh", b"#!/bin/sh\n")),
        uv=Uv(version="0.13.9", sha256=[_hash(root / "simple/uv/uv-0.13.9-py3-none-any.whl")]),
        pins={"torch": {"loose-a": "1.0"}},
        constraints={},
        conda={
            "noarch/tz-1-0.conda": f"sha256:{_put(root / 'channel/noarch/tz-1-0.conda', b'tz')}",
            f"{url}/else/linux-64/own-1-0.conda": _put(root / "else/linux-64/own-1-0.conda", b"own"),
        },
        wheels={f"{name}==1.0": [_wheel(root, name)] for name in ("loose-a", "loose-b")},
    )
    weights = _put(root / f"models/{MODEL}/{COMMIT}/model.safetensors", WEIGHTS)
    again = _put(root / f"models/{MODEL}/{COMMIT}/again.safetensors", WEIGHTS)
    archive = _put(root / "ollama/v0.40.2/ollama-linux-amd64.tar.zst", b"ollama")
    return Lock(
        hosts={
            "gpu-1": Host(stack="one", models=[f"{MODEL}@master"], packages=SYSTEM),
            "gpu-2": Host(stack="one", ollama="0.40.2 x86_64", packages=SYSTEM),
        },
        stack={"one": stack},
        ollama={
            "0.40.2 x86_64": Archive(made_by="a test", file="ollama-linux-amd64.tar.zst", sha256=archive)
        },
        model={
            f"{MODEL}@master": Model(
                made_by="a test",
                commit=COMMIT,
                files={
                    "again.safetensors": File(size=len(WEIGHTS), sha256=again),
                    "model.safetensors": File(size=len(WEIGHTS), sha256=weights),
                },
            )
        },
        packages={SYSTEM: Packages(made_by="a test", files=dict([_debian_package(root, url)]))},
    )


def _wheel(root: Path, name: str) -> Wheel:
    path = root / "simple" / name / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    return Wheel(file=path.name, sha256=_hash(path), size=path.stat().st_size)


def _debian_package(root: Path, url: str) -> tuple[str, Package]:
    """A genuine package without files."""
    tree = root / "tree" / "DEBIAN"
    tree.mkdir(parents=True)
    (tree / "control").write_text(
        "Package: tiny\nVersion: 1:1.0-1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n"
        "Depends: libc6 (>= 2.2)\nDescription: says nothing\n and does nothing\n"
    )
    name = "tiny_1.0-1_all.deb"
    (root / "pool").mkdir()
    subprocess.run(["dpkg-deb", "--build", str(tree.parent), str(root / "pool" / name)], check=True)
    path = root / "pool" / name
    return name, Package(url=f"{url}/pool/{name}", size=path.stat().st_size, sha256=_hash(path))


def _put(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
