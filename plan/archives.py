"""Ollama's release archives: which one a host gets, from where, and the sha256 it must have."""

import functools
from dataclasses import dataclass
from typing import Any

from plan import tables
from plan.errors import SettingsError
from plan.sections import Sources
from plan.sources import preset

OLLAMA_ROOT = "/opt/bringup/ollama"
# What a release's archive is called since 0.14, by CPU architecture.
FILES = {"x86_64": "ollama-linux-amd64.tar.zst", "aarch64": "ollama-linux-arm64.tar.zst"}


@dataclass(frozen=True)
class Archive:
    """A pinned archive: where it is, the first choice first; all have the same bytes."""

    version: str
    urls: tuple[str, ...]
    sha256: str

    @property
    def directory(self) -> str:
        """Where it lies unpacked on a host; it is there only when it is whole."""
        return f"{OLLAMA_ROOT}/{self.version}"

    @property
    def packer(self) -> str:
        """The program that unpacks it, which has the name of its package."""
        return "zstd" if self.urls[0].endswith(".zst") else "gzip"


@functools.cache
def _releases() -> tuple[dict[str, Any], ...]:
    """The table's releases, newest first."""
    table = tables.read("ollama")
    return tuple(table["release"])


def _known(version: str, architecture: str) -> dict[str, Any] | None:
    """The table's row for this version and architecture."""
    releases = (release["archives"] for release in _releases() if release["version"] == version)
    archives: list[dict[str, Any]] = next(releases, [])
    return next((row for row in archives if row["architecture"] == architecture), None)


def ollama(sources: Sources, architecture: str) -> Archive:
    """The archive for a CPU architecture: the newest known release, or the version of the settings.

    Raises:
        SettingsError: the version of the settings is not known here, and comes without a sha256.
    """
    version = sources.ollama_version or _releases()[0]["version"]
    known = _known(version, architecture)
    sha256 = sources.ollama_sha256 or (known["sha256"] if known else None)
    if sha256 is None:
        versions = ", ".join(release["version"] for release in _releases())
        raise SettingsError(
            [
                f"sources.ollama_version: {version} is not known here ({versions} are). "
                "Set sources.ollama_sha256 to its archive's."
            ]
        )
    file = known["file"] if known else FILES[architecture]
    # a mirror may lag behind: the origin is asked after it
    presets = (preset(name)["ollama"] for name in (sources.preset, "default"))
    bases = (sources.ollama,) if sources.ollama else presets
    urls = dict.fromkeys(f"{base.rstrip('/')}/v{version}/{file}" for base in bases)
    return Archive(version, tuple(urls), sha256)
