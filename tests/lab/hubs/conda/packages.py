"""Writes conda packages (.tar.bz2, the first of conda's two formats) from a folder or from a wheel."""

from __future__ import annotations

import bz2
import configparser
import hashlib
import io
import json
import stat
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab.hubs.conda.python import PLACEHOLDER

BUILD = "0_stand_in"
TIMESTAMP_SECONDS = 1_700_000_000


@dataclass(frozen=True)
class Package:
    """A package to write; `entry_points` ("conda = module:function") belong to noarch Python packages."""

    name: str
    version: str
    depends: tuple[str, ...] = ()
    noarch: bool = False
    entry_points: tuple[str, ...] = ()

    @property
    def subdir(self) -> str:
        return "noarch" if self.noarch else "linux-64"

    @property
    def build(self) -> str:
        return f"py{BUILD}" if self.noarch else BUILD

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}-{self.build}.tar.bz2"

    def index(self) -> dict[str, object]:
        """info/index.json, from which repodata.json is made."""
        platform = {"noarch": "python"} if self.noarch else {"arch": "x86_64", "platform": "linux"}
        return {
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "build_number": 0,
            "depends": list(self.depends),
            "subdir": self.subdir,
            "timestamp": TIMESTAMP_SECONDS * 1000,
            **platform,
        }


def write_package(package: Package, tree: Path, channel: Path) -> Path:
    """Pack all files under `tree` into CHANNEL/SUBDIR and return the package's path."""
    target = channel / package.subdir / package.file_name
    target.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in tree.rglob("*") if path.is_symlink() or path.is_file())
    paths = [path_entry(path, str(path.relative_to(tree))) for path in files]
    # Level 1 is twice as fast to write and costs 8 percent of size.
    with bz2.open(target, "wb", compresslevel=1) as file, tarfile.open(fileobj=file, mode="w") as archive:
        add_info(archive, "index.json", package.index())  # first, so that it is read without the rest
        add_info(archive, "paths.json", {"paths": paths, "paths_version": 1})
        if package.noarch:
            link = {"noarch": {"type": "python", "entry_points": package.entry_points}}
            add_info(archive, "link.json", link | {"package_metadata_version": 1})
        for path in files:
            add_file(archive, path, str(path.relative_to(tree)))
    return target


def write_wheel(wheel: Path, scratch: Path, channel: Path, depends: tuple[str, ...]) -> Path:
    """A pure-Python wheel as a noarch package, its console scripts as entry points."""
    tree = scratch / wheel.stem
    metadata = unpack_wheel(wheel, tree / "site-packages")
    scripts = console_scripts(metadata)
    with (metadata / "RECORD").open("a") as record:
        record.writelines(f"../../../bin/{script.split(' ')[0]},,\n" for script in scripts)
    name, version = wheel.name.split("-")[:2]
    return write_package(Package(name, version, depends, noarch=True, entry_points=scripts), tree, channel)


def unpack_wheel(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel and return its .dist-info; its RECORD is complete, so that pip and uv can remove it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    metadata = folder / ("-".join(wheel.name.split("-")[:2]) + ".dist-info")
    (metadata / "INSTALLER").write_text("conda\n")
    with (metadata / "RECORD").open("a") as record:
        record.write(f"{metadata.name}/INSTALLER,,\n")
    return metadata


def console_scripts(metadata: Path) -> tuple[str, ...]:
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read(metadata / "entry_points.txt")
    if not parser.has_section("console_scripts"):
        return ()
    return tuple(f"{name} = {function}" for name, function in parser.items("console_scripts"))


def path_entry(path: Path, name: str) -> dict[str, object]:
    """The file's entry in info/paths.json."""
    if path.is_symlink():
        return {"_path": name, "path_type": "softlink", "sha256": sha256(b""), "size_in_bytes": 0}
    data = path.read_bytes()
    entry = {"_path": name, "path_type": "hardlink", "sha256": sha256(data), "size_in_bytes": len(data)}
    relocated = {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
    return entry | relocated if PLACEHOLDER.encode() in data else entry


def add_file(archive: tarfile.TarFile, path: Path, name: str) -> None:
    if path.is_symlink():
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.mtime = tarfile.SYMTYPE, str(path.readlink()), TIMESTAMP_SECONDS
        archive.addfile(entry)
    else:
        add_bytes(archive, name, path.read_bytes(), mode=stat.S_IMODE(path.stat().st_mode))


def add_info(archive: tarfile.TarFile, name: str, value: object) -> None:
    add_bytes(archive, f"info/{name}", json.dumps(value, indent=1).encode())


def add_bytes(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), mode, TIMESTAMP_SECONDS
    archive.addfile(entry, io.BytesIO(data))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
