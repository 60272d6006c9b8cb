"""A directory of ours for /srv/models, and the download program run as its unit would: no host is needed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.lab.hubs import chat_model
from tests.lab.hubs.repository import Repository

PROGRAM = Path(__file__).parents[2] / "templates/models/fetch.py"
SHARD = "model-00002-of-00002.safetensors"
NAME = chat_model.NAME


class Host:
    """A host's /srv/models, and what runs there."""

    def __init__(self, root: Path, client: Path, hub: httpx.Client, published: Path) -> None:
        self.root, self.python, self.hub, self.published = root, client.with_name("python"), hub, published
        self.endpoint = str(hub.base_url).rstrip("/")
        self.model = root / NAME
        repository = Repository.load(published / "models" / NAME)
        assert repository
        self.repository = repository

    def commit(self, revision: str = "master") -> str:
        found = self.repository.resolve(revision)
        assert found
        return found.id

    def files(self, revision: str = "master") -> dict[str, str]:
        """Path -> sha256 of what the hub has."""
        return {
            path: file.sha256 for path, file in self.repository.commits[self.commit(revision)].files.items()
        }

    def job(self, **changes: Any) -> dict[str, Any]:
        commit = changes.pop("commit", self.commit(changes.get("revision", "master")))
        return {
            "model": NAME,
            "revision": "master",
            "commit": commit,
            "directory": f"{self.model}/{commit}",
            "staging": f"{self.model}/.staging.part",
            "places": [self.endpoint],
            "pinned_by": self.endpoint,
            "include": [],
            "exclude": [],
            "locked": {},
            "patience_seconds": 20,
            "max_rate_mbit": None,
        } | changes

    def start(self, job: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
        command = [str(self.python), "-B", str(PROGRAM), json.dumps(job)]
        variables = {"PATH": os.environ["PATH"], "HOME": str(self.root)} | environment
        return subprocess.Popen(
            command,
            env=variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, environment: dict[str, str] | None = None, **changes: Any) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(self.job(**changes), **(environment or {}))
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def has(self, revision: str = "master", without: tuple[str, ...] = ()) -> bool:
        """Whether this revision is published, every byte of it and nothing else, and is the current one."""
        directory = self.model / self.commit(revision)
        wanted = {path: sha256 for path, sha256 in self.files(revision).items() if path not in without}
        return (
            hashes(directory) == wanted
            and (self.model / "current").resolve() == directory
            and not list(self.model.glob(".*part*"))
        )

    def nothing_published(self) -> bool:
        return not [path for path in self.model.glob("*") if not path.name.startswith(".")]

    def switch(self, **faults: Any) -> None:
        self.hub.post("/_lab", json=faults).raise_for_status()

    def asked(self) -> list[dict[str, Any]]:
        """What has been asked for since this was asked last."""
        log = self.published / "requests.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.write_text("")
        return lines

    def fetched(self) -> list[str]:
        return sorted(
            {each["path"].rpartition("=")[2] for each in self.asked() if "FilePath=" in each["path"]}
        )


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".bringup.json"
    }
