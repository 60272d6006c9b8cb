"""Prefixes: which there are, how they are made and removed, what is in them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import rattler
from rattler.package_streaming import PackageArchive

from . import VERSION, explicit
from .errors import (
    CondaEnvironmentError,
    CondaValueError,
    EnvironmentLocationNotFound,
    EnvironmentNameNotFound,
)

ROOT = Path(sys.prefix)
PACKAGE_CACHE = ROOT / "pkgs"
ENVIRONMENTS = ROOT / "envs"


def is_environment(prefix: Path) -> bool:
    return (prefix / "conda-meta" / "history").is_file()


def prefix_of_name(name: str) -> Path:
    return ROOT if name in ("base", "root") else ENVIRONMENTS / name


def existing(name: str | None, prefix: str | None) -> Path:
    """The prefix of the environment that `--name` or `--prefix` names (the base one when neither does)."""
    path = Path(prefix).absolute() if prefix else prefix_of_name(name or "base")
    if not is_environment(path):
        raise EnvironmentNameNotFound(name) if name else EnvironmentLocationNotFound(path)
    return path


# -- the list of environments -------------------------------------------------------------------------


def registry() -> Path:
    """Where conda notes the environments of a user, so that those outside envs/ are found again."""
    return Path.home() / ".conda" / "environments.txt"


def all_prefixes() -> list[Path]:
    """base first, then the others by path."""
    named = ENVIRONMENTS.iterdir() if ENVIRONMENTS.is_dir() else ()
    noted = registry().read_text().splitlines() if registry().is_file() else ()
    others = {*named, *map(Path, noted)} - {ROOT}
    return [ROOT, *sorted(prefix for prefix in others if is_environment(prefix))]


def note(prefix: Path) -> None:
    if prefix not in all_prefixes():
        registry().parent.mkdir(parents=True, exist_ok=True)
        with registry().open("a") as file:
            file.write(f"{prefix}\n")


def forget(prefix: Path) -> None:
    if registry().is_file():
        kept = [line for line in registry().read_text().splitlines() if line != str(prefix)]
        registry().write_text("".join(f"{line}\n" for line in kept))


# -- create and remove --------------------------------------------------------------------------------


def create(prefix: Path, lock: Path) -> None:
    """Make the environment of a lock file; an older one at the same place is replaced, as conda does."""
    if prefix == ROOT:
        raise CondaEnvironmentError("The target prefix is the base prefix. Aborting.")
    packages = explicit.read(lock)
    PACKAGE_CACHE.mkdir(exist_ok=True)
    archives = [explicit.fetch(package, PACKAGE_CACHE) for package in packages]
    if is_environment(prefix):
        shutil.rmtree(prefix)
    existed = prefix.exists()
    try:
        link(prefix, packages, archives)
    except BaseException:
        if not existed:
            shutil.rmtree(prefix, ignore_errors=True)
        raise
    note(prefix)


def link(prefix: Path, packages: list[explicit.ExplicitPackage], archives: list[Path]) -> None:
    records = [record(package, archive) for package, archive in zip(packages, archives, strict=True)]
    cache = PACKAGE_CACHE / "rattler"
    asyncio.run(rattler.install(records, prefix, cache_dir=cache, show_progress=False))
    origins = {archive.as_uri(): package for package, archive in zip(packages, archives, strict=True)}
    for path in (prefix / "conda-meta").glob("*.json"):
        content = json.loads(path.read_text())
        package = origins[content["url"]]
        origin = {"url": package.url, "channel": package.channel}  # not the file in the cache
        path.write_text(json.dumps(content | origin, indent=2))
    write_history(prefix, packages)


def record(package: explicit.ExplicitPackage, archive: Path) -> rattler.RepoDataRecord:
    """What rattler wants to know of a package, from the package itself."""
    index = asyncio.run(index_json(archive))
    data = archive.read_bytes()
    sha256, md5 = (hashlib.new(name, data).hexdigest() for name in ("sha256", "md5"))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(index)
        file.flush()
        known = rattler.PackageRecord.from_index_json(Path(file.name), size=len(data), sha256=sha256, md5=md5)
    return rattler.RepoDataRecord(known, package.file, archive.as_uri(), package.channel)


async def index_json(archive: Path) -> str:
    content = await (await PackageArchive.from_path(archive)).read_file("info/index.json")
    if content is None:
        raise CondaValueError(f"{archive.name} is no conda package: it has no info/index.json")
    return content.decode()


def write_history(prefix: Path, packages: list[explicit.ExplicitPackage]) -> None:
    lines = [f"==> {time.strftime('%Y-%m-%d %H:%M:%S')} <==", f"# cmd: {' '.join(sys.argv)}"]
    lines.append(f"# conda version: {VERSION}")
    for package in packages:
        stem = package.file.removesuffix(".tar.bz2").removesuffix(".conda")
        lines.append(f"+{package.channel}/{package.subdir}::{stem}")
    (prefix / "conda-meta" / "history").write_text("\n".join(lines) + "\n")


def remove(prefix: Path) -> None:
    if prefix == ROOT:
        raise CondaEnvironmentError("cannot remove root environment, add -n NAME or -p PREFIX option")
    if os.environ.get("CONDA_PREFIX") == str(prefix):
        raise CondaEnvironmentError(
            "Cannot remove current environment. Deactivate and run conda remove again"
        )
    shutil.rmtree(prefix)
    forget(prefix)


# -- what is in an environment ------------------------------------------------------------------------


def packages_in(prefix: Path) -> list[dict[str, Any]]:
    """Entries of `conda list --json`: conda's packages and those that pip or uv put beside them, by name."""
    records = [json.loads(path.read_text()) for path in (prefix / "conda-meta").glob("*.json")]
    entries = [entry_of_record(record) for record in records]
    names = {entry["name"] for entry in entries}
    pip = [entry for entry in map(entry_of_distribution, distributions(prefix)) if entry["name"] not in names]
    return sorted(entries + pip, key=lambda entry: str(entry["name"]))


def records_in(prefix: Path) -> list[dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in (prefix / "conda-meta").glob("*.json")]
    return sorted(records, key=lambda record: str(record["name"]))


def distributions(prefix: Path) -> list[metadata.Distribution]:
    """What pip or uv installed; leftovers of a removed package, which have no name, are none."""
    folders = [str(path) for path in (prefix / "lib").glob("python3*/site-packages")]
    return [found for found in metadata.distributions(path=folders) if found.metadata["Name"]]


def entry_of_record(record: dict[str, Any]) -> dict[str, Any]:
    base_url = record["channel"].rstrip("/")
    return {
        "base_url": base_url,
        "build_number": record["build_number"],
        "build_string": record["build"],
        "channel": base_url.rpartition("/")[2],
        "dist_name": f"{record['name']}-{record['version']}-{record['build']}",
        "name": record["name"],
        "platform": record["subdir"],
        "version": record["version"],
    }


def entry_of_distribution(distribution: metadata.Distribution) -> dict[str, Any]:
    name = distribution.metadata["Name"].lower().replace("_", "-")
    return {
        "base_url": "https://conda.anaconda.org/pypi",
        "build_number": 0,
        "build_string": "pypi_0",
        "channel": "pypi",
        "dist_name": f"{name}-{distribution.version}-pypi_0",
        "name": name,
        "platform": "pypi",
        "version": distribution.version,
    }
