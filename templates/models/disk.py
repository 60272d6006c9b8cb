"""A model's files on this host's disk: hashes, the staging directory, the manifest, the one rename."""

from __future__ import annotations

import ctypes
import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Container
from datetime import UTC, datetime
from pathlib import Path

MANIFEST = ".bringup.json"
# In a staging directory: the commit whose files grow there.
MARKER = ".bringup-commit"
RENAME_EXCHANGE = 2
AT_FDCWD = -100


def wanted(path: str, job: dict) -> bool:
    """Whether the patterns of the settings want a file; a pattern without a slash means the name as well."""

    def one_of(patterns: list[str]) -> bool:
        name = path.rpartition("/")[2]
        return any(fnmatch.fnmatchcase(path, each) or fnmatch.fnmatchcase(name, each) for each in patterns)

    return (not job["include"] or one_of(job["include"])) and not one_of(job["exclude"])


class OtherBytesError(Exception):
    """A place has something else than the lock."""


def held(found: dict[str, dict], job: dict) -> dict[str, dict]:
    """What a place lists, held to the lock: its files and no others, with its hashes where it knows them."""
    locked = job["locked"]
    for path, sha256 in locked.items():
        if not wanted(path, job):
            continue
        if path not in found:
            raise OtherBytesError(f"does not list {path}, which the lock has")
        if sha256 and (found[path]["sha256"] or sha256) != sha256:
            raise OtherBytesError(f"has other bytes of {path} than the lock")
        found[path]["sha256"] = found[path]["sha256"] or sha256
    return {path: file for path, file in found.items() if path in locked} if locked else found


def manifest(directory: Path, job: dict) -> dict | None:
    """What is published there, if it is what this job wants; an unreadable manifest counts as none."""
    found = read_manifest(directory)
    same = all(found.get(key) == job[key] for key in ("model", "commit", "include", "exclude"))
    return found if same and found.get("files") else None


def read_manifest(directory: Path) -> dict:
    try:
        found = json.loads((directory / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def listed(manifest: dict) -> dict[str, dict]:
    return {
        path: {"size": entry["size"], "sha256": entry["sha256"]} for path, entry in manifest["files"].items()
    }


def wrong(directory: Path, files: dict[str, dict]) -> list[str]:
    """The files that are not as listed, and those that are not listed."""
    there = {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}
    extra = there - set(files) - {MANIFEST}
    return sorted(extra) + [path for path in files if not matches(directory / path, files[path])]


def matches(path: Path, file: dict) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file["size"]:
        return False
    if file["sha256"]:
        return digest(path, hashlib.sha256()) == file["sha256"]
    if file.get("git"):
        blob = hashlib.sha1(f"blob {file['size']}\0".encode())
        return digest(path, blob) == file["git"]
    return True


def digest(path: Path, hasher: hashlib._Hash) -> str:
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def adopt(staging: Path, final: Path, files: dict[str, dict]) -> list[str]:
    """Links into the staging directory what other commits of the model, or this one, have right already.

    Returns:
        The files of the published directory that are not right any more.
    """
    clear_the_way(staging, files)
    damaged = []
    for directory in [final, *sorted(path for path in final.parent.glob("*") if path != final)]:
        if directory.is_symlink() or not (directory / MANIFEST).is_file():
            continue
        there = read_manifest(directory).get("files", {})
        for path, file in files.items():
            entry, target = there.get(path, {}), staging / path
            if not file["sha256"] or entry.get("sha256") != file["sha256"] or target.exists():
                continue
            if matches(directory / path, file):
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(directory / path, target)
                Path(f"{target}.incomplete").unlink(missing_ok=True)
            elif directory == final:
                damaged.append(path)
    return damaged


def clear_the_way(staging: Path, files: dict[str, dict]) -> None:
    """Removes what stands where a file or its directory shall be and is none."""
    for path in files:
        target = staging / path
        for parent in [*target.relative_to(staging).parents][-2::-1]:
            place = staging / parent
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                place.unlink()
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        elif target.is_symlink() or (target.exists() and _in_the_way(target, files[path])):
            target.unlink()


def _in_the_way(target: Path, file: dict) -> bool:
    """Whether a file is too long, or another commit's as well, which a change would change too."""
    status = target.stat()
    return status.st_size > file["size"] or status.st_nlink > 1


def hold_to(staging: Path, files: dict[str, dict], commit: str) -> None:
    """Removes what another commit has left of files that no hash tells from this one's."""
    marker = staging / MARKER
    if marker.is_file() and marker.read_text() == commit:
        return
    for path, file in files.items():
        if not file["sha256"] and not file.get("git"):
            (staging / path).unlink(missing_ok=True)
            Path(f"{staging / path}.incomplete").unlink(missing_ok=True)
    marker.write_text(commit)


def sweep(staging: Path, files: dict[str, dict], verified: set[str], in_place: bool) -> None:
    """Keeps of earlier downloads what is verified, and the beginnings of the rest.

    `in_place`: whether what is cut may go on under its own name, as an upload and an exchange do.
    """
    keep = {MARKER, *verified}
    for path in set(files) - verified:
        target = staging / path
        keep.add(f"{path}.incomplete")
        if in_place and target.exists() and target.stat().st_size < files[path]["size"]:
            keep |= {path, f"{path}.aria2"}
    keep_only(staging, keep)


def bytes_below(directory: Path) -> int:
    """Bytes on the disk; files that grow in parts have holes."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                status = (Path(folder) / name).lstat()
            except OSError:
                continue
            total += min(status.st_blocks * 512, status.st_size)
    return total


def free(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def publish(job: dict, staging: Path, final: Path, files: dict[str, dict]) -> None:
    """Removes what is not listed, writes the manifest, makes all of it durable, renames."""
    keep_only(staging, files)
    write_manifest(staging, job, files)
    os.sync()
    if final.exists() and exchange(staging, final):
        shutil.rmtree(staging)
    else:
        if final.exists():
            aside = final.with_name(f".{final.name}.old.part")
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        staging.rename(final)
        shutil.rmtree(final.with_name(f".{final.name}.old.part"), ignore_errors=True)
    link = final.with_name(".current.part")
    link.unlink(missing_ok=True)
    link.symlink_to(final.name)
    link.replace(final.with_name("current"))
    sync_directory(final.parent)


def keep_only(directory: Path, paths: Container[str]) -> None:
    """Removes all other files, and directories with nothing in them."""
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif str(path.relative_to(directory)) not in paths:
            path.unlink()


def write_manifest(directory: Path, job: dict, files: dict[str, dict]) -> None:
    entries = {
        path: {
            "size": file["size"],
            "sha256": file["sha256"] or digest(directory / path, hashlib.sha256()),
            "listed": bool(file["sha256"]),
            "mtime_ns": (directory / path).stat().st_mtime_ns,
        }
        for path, file in files.items()
    }
    keys = ("model", "revision", "commit", "include", "exclude")
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    text = {key: job[key] for key in keys} | {"place": job["pinned_by"], "published": now, "files": entries}
    (directory / MANIFEST).write_text(json.dumps(text, indent=1, sort_keys=True))


def refresh(directory: Path, manifest: dict) -> None:
    """Records the present times of files whose bytes were found right, where they have changed."""
    changed = False
    for path, entry in manifest["files"].items():
        now = (directory / path).stat().st_mtime_ns
        changed |= now != entry["mtime_ns"]
        entry["mtime_ns"] = now
    if changed:
        temporary = directory.parent / f".{directory.name}.json.part"
        temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True))
        os.sync()
        temporary.replace(directory / MANIFEST)


def exchange(one: Path, other: Path) -> bool:
    """Swaps two directories in one step, where the kernel and the file system can."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
