"""Makes the self-extracting installer: a shell script in front of a tar.gz of the base prefix."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

SCRIPT = Path(__file__).with_name("installer.sh")


def write_installer(base: Path, target: Path, version: str) -> None:
    """`base` is a finished conda prefix; where its text files name it, the installer puts the new prefix."""
    payload = pack(base)
    script = SCRIPT.read_text()
    first_line = len(script.splitlines()) + 1
    values = {
        "BUILD_PREFIX": str(base),
        "FIRST_LINE": str(first_line),
        "NAME: VERSION": f"NAME: {target.name} (stand-in)",
        "PAYLOAD_SHA256": hashlib.sha256(payload).hexdigest(),
        "VERSION": version,
    }
    for name, value in values.items():
        script = script.replace(name, value)
    target.write_bytes(script.encode() + payload)
    target.chmod(0o755)


def pack(base: Path) -> bytes:
    """The prefix as tar.gz, with conda-meta/.relocate naming the text files that hold its path."""
    files = sorted(path for path in base.rglob("*") if path.is_symlink() or path.is_file())
    relocated = [str(path.relative_to(base)) for path in files if names_prefix(path, base)]
    (base / "conda-meta" / ".relocate").write_text("".join(f"{name}\n" for name in relocated))
    stream = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1, mtime=0) as file,
        tarfile.open(fileobj=file, mode="w") as archive,
    ):
        for path in [*files, base / "conda-meta" / ".relocate"]:
            archive.add(path, path.relative_to(base), recursive=False)
    return stream.getvalue()


def names_prefix(path: Path, base: Path) -> bool:
    return not path.is_symlink() and str(base).encode() in path.read_bytes()
