"""A model repository of the stand-in hub: commits, branches and tags over content-addressed files.

On disk: ROOT/models/OWNER/NAME/repository.json beside objects/SHA256.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from pydantic import BaseModel


class File(BaseModel):
    """One file of a commit; `revision` is the last commit that changed it, as the real hub reports it."""

    sha256: str
    size: int
    revision: str


class Commit(BaseModel):
    id: str
    parent: str | None
    message: str
    seconds: int
    files: dict[str, File]


class Repository(BaseModel):
    """What repository.json holds. Branches and tags name commits."""

    commits: dict[str, Commit] = {}
    branches: dict[str, str] = {}
    tags: dict[str, str] = {}

    @classmethod
    def load(cls, folder: Path) -> Repository | None:
        """The repository in this folder, or None when there is none."""
        try:
            return cls.model_validate_json((folder / "repository.json").read_bytes())
        except FileNotFoundError:
            return None

    def save(self, folder: Path) -> None:
        (folder / "repository.json").write_text(self.model_dump_json(indent=1))

    def resolve(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag or a commit id (at least 8 digits of it) names."""
        named = self.branches.get(revision) or self.tags.get(revision)
        if named:
            return self.commits[named]
        found = [key for key in self.commits if len(revision) >= 8 and key.startswith(revision)]
        return self.commits[found[0]] if len(found) == 1 else None

    def history(self, commit: Commit) -> list[Commit]:
        """This commit and its ancestors, newest first."""
        return [commit] + (self.history(self.commits[commit.parent]) if commit.parent else [])

    def commit(
        self, source: Path, objects: Path, message: str, seconds: int, branch: str = "master"
    ) -> Commit:
        """Record all files under `source` as the next commit of master, copying new bytes to `objects`."""
        parent = self.branches.get("master")
        before = self.commits[parent].files if parent else {}
        hashes = {str(path.relative_to(source)): store(path, objects) for path in walk(source)}
        summary = "\n".join([parent or "", message, *(f"{sha} {name}" for name, sha in hashes.items())])
        commit_id = hashlib.sha1(summary.encode(), usedforsecurity=False).hexdigest()
        files = {}
        for name, sha in hashes.items():
            kept = before.get(name)
            revision = kept.revision if kept and kept.sha256 == sha else commit_id
            files[name] = File(sha256=sha, size=(objects / sha).stat().st_size, revision=revision)
        commit = Commit(id=commit_id, parent=parent, message=message, seconds=seconds, files=files)
        self.commits[commit_id] = commit
        self.branches["master"] = commit_id
        return commit


def walk(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def store(path: Path, objects: Path) -> str:
    """Copy a file into the objects and return its sha256, which is its name there."""
    with path.open("rb") as file:
        sha = hashlib.file_digest(file, "sha256").hexdigest()
    if not (objects / sha).exists():
        objects.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, objects / sha)
    return sha
