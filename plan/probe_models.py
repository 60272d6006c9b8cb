"""The models on a host, as the probe saw them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MANIFEST = ".bringup.json"


@dataclass(frozen=True)
class InstalledModel:
    """A model directory: its manifest as written, and what is there now: path -> (bytes, mtime in ns)."""

    manifest: Mapping[str, Any]
    files: Mapping[str, tuple[int, int]]

    def intact(self, model: str, revision: str, commit: str = "") -> bool:
        """Whether every file is as when its hash was verified, by size and time, and none is extra.

        The commit tells what it is; the revision does, where no commit is known.
        """
        wanted, found = (commit, "commit") if commit else (revision, "revision")
        if (self.manifest.get("model"), self.manifest.get(found)) != (model, wanted):
            return False
        recorded = {
            path: (entry.get("size"), entry.get("mtime_ns"))
            for path, entry in self.manifest.get("files", {}).items()
        }
        return bool(recorded) and recorded == {
            path: stamp for path, stamp in self.files.items() if path != MANIFEST
        }


def models(lines: list[str]) -> dict[str, InstalledModel]:
    """Directory -> the model there, from the probe's block of models."""
    found: dict[str, InstalledModel] = {}
    for line in lines:
        kind, _, value = line.partition(" ")
        if kind == "directory":
            directory = value
            files: dict[str, tuple[int, int]] = {}
        elif kind == "manifest":
            found[directory] = InstalledModel(manifest(value), files)
        else:
            size, mtime, path = value.split(" ", 2)
            seconds, _, fraction = mtime.partition(".")
            files[path] = (int(size), int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0")))
    return found


def parts(lines: list[str]) -> dict[str, float]:
    """Directory -> GiB that it takes, of those where a model grows."""
    found = (line.split(maxsplit=1) for line in lines)
    return {directory: int(kib) / 2**20 for kib, directory in found}


def manifest(text: str) -> Mapping[str, Any]:
    """A manifest that cannot be read counts as none: the model is then verified again, in full."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
