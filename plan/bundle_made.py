"""What a bundle has beside the files that it fetched: apt's or dnf's index of packages, models' manifests."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from debian.debfile import DebFile

from plan import bundle, rpm_index
from plan.bundle import APT_INDEX
from plan.lock import Lock
from plan.probe_models import MANIFEST


def texts(lock: Lock, root: Path, hashes: Mapping[str, str]) -> dict[str, str]:
    """Path -> text of every such file, for what is there.

    Args:
        lock: the lock.
        root: the bundle's directory.
        hashes: path -> sha256 of what was fetched.
    """
    return dict([*_package_indexes(lock, root, hashes), *_manifests(lock, root, hashes)])


def _package_indexes(lock: Lock, root: Path, hashes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in lock.packages:
        folder = f"packages/{bundle.folder_of(name)}"
        there = [path for path in sorted(hashes) if path.startswith(f"{folder}/")]
        debs = [path for path in there if path.endswith(".deb")]
        if debs:
            stanzas = [_stanza(root / path, path.removeprefix(f"{folder}/"), hashes[path]) for path in debs]
            yield f"{folder}/{APT_INDEX}", "\n".join(stanzas)
        rpms = {path.removeprefix(f"{folder}/"): hashes[path] for path in there if path.endswith(".rpm")}
        if rpms:
            for path, text in rpm_index.texts(root / folder, rpms).items():
                yield f"{folder}/{path}", text


def _stanza(path: Path, name: str, sha256: str) -> str:
    """A package's entry: its own control file, and where it is."""
    with DebFile(str(path)) as package:
        control = str(package.debcontrol()).rstrip("\n")
    return f"{control}\nFilename: ./{name}\nSize: {path.stat().st_size}\nSHA256: {sha256}\n"


def _manifests(lock: Lock, root: Path, hashes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, model in lock.model.items():
        model_id, _, revision = name.partition("@")
        folder = f"models/{model_id}/{model.commit}"
        paths = {path: f"{folder}/{path}" for path in model.files}
        if not paths or not all(path in hashes for path in paths.values()):
            continue
        # as `templates/models/disk.py` reads it
        files = {
            path: {"size": (root / whole).stat().st_size, "sha256": hashes[whole], "listed": True}
            for path, whole in sorted(paths.items())
        }
        text = {"model": model_id, "revision": revision, "commit": model.commit, "files": files}
        yield f"{folder}/{MANIFEST}", f"{json.dumps(text, indent=1, sort_keys=True)}\n"
