"""A package index of wheels that hold nothing but their metadata, served to whom it may concern."""

import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zipfile import ZipInfo


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


def publish(root: Path, releases: Mapping[str, Sequence[str]]) -> None:
    """Adds wheels, and the index pages of their projects.

    Args:
        root: where the index is; `/simple/` is below it.
        releases: `NAME==VERSION` -> what it requires, as `Requires-Dist` has it.
    """
    for release, requires in releases.items():
        name, version = release.split("==")
        project = root / "simple" / name
        project.mkdir(parents=True, exist_ok=True)
        _wheel(project, name, version, requires)
        links = [
            f'<a href="{wheel.name}#sha256={hashlib.sha256(wheel.read_bytes()).hexdigest()}">{wheel.name}</a>'
            for wheel in sorted(project.glob("*.whl"))
        ]
        (project / "index.html").write_text("<!DOCTYPE html><html><body>\n" + "\n".join(links))


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
