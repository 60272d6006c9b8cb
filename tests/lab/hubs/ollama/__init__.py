"""ROOT/ollama: a stand-in for Ollama as its release archive, and the registries that it pulls from.

The program is Python, which a bare host has not: the archive brings along the one that the channel has.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.hubs import recipe
from tests.lab.hubs.ollama import registry

VERSION = "0.40.2+standin"
FILE = "ollama-linux-amd64.tar.zst"
PROGRAM = tuple(sorted(Path(__file__).with_name("stand_in").glob("*.py")))
LAUNCHER = """\
#!/bin/sh
# A stand-in for Ollama.
here=$(dirname "$(dirname "$(readlink -f "$0")")")/lib/ollama
start="import sys; sys.path.insert(0, '$here'); from stand_in.client import main; main()"
exec "$here/python/bin/python3" -I -B -c "$start" "$@"
"""
# Of Python's library, what a server has no use for.
LEFT_OUT = ("ensurepip", "lib2to3", "pydoc_data", "site-packages", "unittest", "venv", "wsgiref")
MOST_BLOCK_BYTES = 128 * 1024
TIMESTAMP_SECONDS = 1_700_000_000


@dataclass(frozen=True)
class Offer:
    """What the settings of a lab's hosts need: `sources.ollama`, its version, the archive's sha256."""

    base: str
    version: str
    sha256: str


def build_ollama(root: Path, url: str, channel: Path) -> Offer:
    """Everything below ROOT/ollama; `url` is where hosts find ROOT, `channel` has Python as a package."""
    (python,) = channel.glob("linux-64/python-*.tar.bz2")
    build = recipe.recipe_hash(Path(__file__), Path(registry.__file__), *PROGRAM, python, url)

    def make(folder: Path) -> None:
        registry.write(folder)
        archive = folder / f"v{VERSION}" / FILE
        archive.parent.mkdir()
        write_zstandard(pack(python, f"{url}/ollama"), archive)

    recipe.build_folder(root / "ollama", build, make)
    with (root / "ollama" / f"v{VERSION}" / FILE).open("rb") as file:
        return Offer(f"{url}/ollama", VERSION, hashlib.file_digest(file, "sha256").hexdigest())


def pack(python: Path, registries: str) -> bytes:
    """The archive: bin/ollama, lib/ollama/ with the program, the address of its registries, and Python."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive, tarfile.open(python) as package:
        for member in members(package):
            content = package.extractfile(member) if member.isfile() else None
            member.name = f"lib/ollama/python/{member.name}"
            archive.addfile(member, content)
        add(archive, "bin/ollama", LAUNCHER, 0o755)
        for file in PROGRAM:
            add(archive, f"lib/ollama/stand_in/{file.name}", file.read_text(), 0o644)
        add(archive, "lib/ollama/registries", registries, 0o644)
        add(archive, "lib/ollama/version", VERSION, 0o644)
    return stream.getvalue()


def members(package: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in package:
        parts = member.name.split("/")
        if parts[0] in ("bin", "lib") and not (len(parts) > 2 and parts[2] in LEFT_OUT):
            yield member


def add(archive: tarfile.TarFile, name: str, text: str, mode: int) -> None:
    data = text.encode()
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), mode, TIMESTAMP_SECONDS
    archive.addfile(member, io.BytesIO(data))


def write_zstandard(data: bytes, target: Path) -> None:
    """A Zstandard frame of raw blocks (RFC 8878, 3.1.1): valid, uncompressed, and no tool is needed."""
    with target.open("wb") as file:
        file.write(bytes.fromhex("28b52ffd 00 38"))  # magic number, no options, a window of 128 KiB
        for start in range(0, len(data), MOST_BLOCK_BYTES):
            block = data[start : start + MOST_BLOCK_BYTES]
            last = start + len(block) == len(data)
            file.write((last | len(block) << 3).to_bytes(3, "little") + block)
