"""A package index of wheels that hold nothing but their metadata, served to whom it may concern."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zipfile import ZipInfo

_JSON = "application/vnd.pypi.simple.v1+json"


class _Quiet(SimpleHTTPRequestHandler):
    def list_directory(self, path: Any) -> io.BytesIO | None:
        """A project's page as JSON, where it has no HTML one."""
        text = (Path(path) / "index.v1.json").read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", _JSON)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        return io.BytesIO(text)

    def end_headers(self) -> None:
        """What is published between two questions is seen by the second."""
        self.send_header("Cache-Control", "max-age=0")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


def publish(root: Path, releases: Mapping[str, Sequence[str]], uploaded: str = "") -> None:
    """Adds wheels, and the index pages of their projects.

    Args:
        root: where the index is; `/simple/` is below it.
        releases: `NAME==VERSION` -> what it requires, as `Requires-Dist` has it.
        uploaded: when, as the page then says in JSON (PEP 691 and 700); an HTML page says no such thing.
    """
    for release, requires in releases.items():
        name, version = release.split("==")
        project = root / "simple" / name
        project.mkdir(parents=True, exist_ok=True)
        _wheel(project, name, version, requires)
        if uploaded:
            _page(project, name, version, uploaded)
            continue
        links = [
            f'<a href="{wheel.name}#sha256={hashlib.sha256(wheel.read_bytes()).hexdigest()}">{wheel.name}</a>'
            for wheel in sorted(project.glob("*.whl"))
        ]
        (project / "index.html").write_text("<!DOCTYPE html><html><body>\n" + "\n".join(links))


def _page(project: Path, name: str, version: str, uploaded: str) -> None:
    path = project / "index.v1.json"
    page = json.loads(path.read_text()) if path.exists() else {"files": [], "versions": []}
    wheel = project / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    file = {
        "filename": wheel.name,
        "url": wheel.name,
        "hashes": {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()},
        "size": wheel.stat().st_size,
        "upload-time": uploaded,
    }
    page |= {"meta": {"api-version": "1.1"}, "name": name, "versions": [*page["versions"], version]}
    path.write_text(json.dumps(page | {"files": [*page["files"], file]}))


def _wheel(project: Path, name: str, version: str, requires: Sequence[str]) -> None:
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {one}" for one in requires]
    files = {
        f"{stem}.dist-info/METADATA": "\n".join(metadata) + "\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{stem}.dist-info/RECORD"] = "".join(
        f"{path},,\n" for path in [*files, f"{stem}.dist-info/RECORD"]
    )
    with zipfile.ZipFile(project / f"{stem}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(ZipInfo(path), text)  # without the time: the same wheel has the same hash


@contextmanager
def served(root: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """Serves it; the address of the index."""
    server = ThreadingHTTPServer((address, 0), partial(_Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{address}:{server.server_port}/simple"
    finally:
        server.shutdown()
        server.server_close()
