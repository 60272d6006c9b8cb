"""Stand-in for the ModelScope hub: the HTTP paths that the real `modelscope` client calls (1.37 to 1.40.2).

Paths and shapes are those of the client's own source (modelscope/hub/api.py, modelscope_hub/_legacy_api.py).
As on the real hub, `LatestCommitter.Id` of a file list is empty and only `ShortId` is set; the full commit
id of a branch comes from `/commits`.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlsplit

from tests.lab.hubs.repository import Commit, File, Repository
from tests.lab.hubs.wire import Content, StandInHandler

LFS_BYTES = 1024 * 1024
MAX_LISTED_FILES = 3000  # the real hub truncates there, without a word


class ModelScopeHandler(StandInHandler):
    def answer(self) -> None:
        path = urlsplit(self.url).path.strip("/").split("/")
        if path == ["api", "v1", "repos", "internalAccelerationInfo"]:
            self.send_data({"InternalRegionQueryAddress": ""})
        elif path[:3] != ["api", "v1", "models"] or len(path) < 5:
            self.refuse(404, f"{self.path} is not served by this stand-in")
        elif not self.is_let_in():
            self.refuse(403 if self.headers.get("Authorization") else 401, "access denied")
        else:
            self.answer_model(path[3], path[4], path[5:])

    def answer_post(self, body: bytes) -> None:
        if urlsplit(self.path).path != "/api/v1/login":
            super().answer_post(body)
            return
        token = json.loads(body or b"{}").get("AccessToken", "")
        if self.faults.token not in (None, token):
            self.refuse(401, "the access token is invalid")
        else:
            self.send_data({"AccessToken": "git-token", "Username": "lab", "Email": "lab@example.com"})

    # -- a model ----------------------------------------------------------------------------------

    def answer_model(self, owner: str, name: str, rest: list[str]) -> None:
        folder = self.server.root / "models" / owner / name
        repository = None if {owner, name} & {".", ".."} else Repository.load(folder)
        if repository is None:
            self.refuse(404, f"record not found: {owner}/{name}")
        elif not rest:
            self.send_data({"Path": owner, "Name": name, "Revision": "master", "Visibility": 5})
        elif rest == ["revisions"]:
            self.send_data(revision_map(repository))
        else:
            self.answer_revision(repository, folder, rest)

    def answer_revision(self, repository: Repository, folder: Path, rest: list[str]) -> None:
        revision = rest[1] if rest[0] == "resolve" and len(rest) > 2 else self.query("Revision", "master")
        if rest == ["commits"]:
            revision = self.query("Ref", "master")
        commit = repository.resolve(revision)
        if commit is None:
            self.refuse(404, f"revision {revision} not found")
        elif rest == ["commits"]:
            self.send_commits(repository.history(commit))
        elif rest == ["repo", "files"]:
            self.send_data(self.listing(commit))
        elif rest == ["repo"]:
            self.send_file(folder, commit, self.query("FilePath"))
        elif rest[0] == "resolve" and len(rest) > 2:
            self.send_file(folder, commit, "/".join(rest[2:]))
        else:
            self.refuse(404, f"{self.path} is not served by this stand-in")

    def send_file(self, folder: Path, commit: Commit, name: str) -> None:
        file = commit.files.get(name)
        if file is None:
            self.refuse(404, f"file {name} not found")
        else:
            self.send_content(Content(folder / "objects" / file.sha256, name, file.sha256))

    def send_commits(self, history: list[Commit]) -> None:
        size = int(self.query("PageSize", "10"))
        first = (int(self.query("PageNumber", "1")) - 1) * size
        page = [commit_entry(commit) for commit in history[first : first + size]]
        self.send_data({"Commit": page, "TotalCount": len(history)})

    def listing(self, commit: Commit) -> dict[str, object]:
        root = self.query("Root").strip("/")
        recursive = self.query("Recursive", "False").lower() == "true"
        entries = []
        for path in sorted(set(commit.files) | folders_of(commit)):
            inside = PurePosixPath(path)
            if root and not inside.is_relative_to(root):
                continue
            depth = len(inside.parts) - len(PurePosixPath(root).parts)
            if depth >= 1 and (recursive or depth == 1):
                entries.append(self.entry(path, commit.files.get(path), commit))
        latest = commit_entry(commit) | {"Id": ""}
        return {"Files": entries[:MAX_LISTED_FILES], "IsVisual": 0, "LatestCommitter": latest}

    def entry(self, path: str, file: File | None, commit: Commit) -> dict[str, object]:
        entry: dict[str, object] = {
            "Name": PurePosixPath(path).name,
            "Path": path,
            "Type": "blob" if file else "tree",
            "Mode": "33188" if file else "16384",
            "Size": file.size if file else 0,
            "Sha256": file.sha256 if file else "",
            "Revision": file.revision if file else commit.id,
            "IsLFS": bool(file and file.size >= LFS_BYTES),
            "CommittedDate": commit.seconds,
            "CommitMessage": commit.message,
        }
        if self.faults.no_sha:
            del entry["Sha256"]
        return entry

    # -- helpers ----------------------------------------------------------------------------------

    def query(self, key: str, default: str = "") -> str:
        return parse_qs(urlsplit(self.path).query).get(key, [default])[0]

    def is_let_in(self) -> bool:
        token = self.faults.token
        return (
            token is None
            or self.headers.get("Authorization") == f"Bearer {token}"
            or f"m_session_id={token}" in self.headers.get("Cookie", "")
        )

    def send_data(self, data: object) -> None:
        body = {"Code": 200, "Success": True, "Message": "success", "RequestId": "stand-in", "Data": data}
        self.send_json(200, body)

    def refuse(self, status: int, message: str) -> None:
        code = 10010205000 + status  # any business code that is not 200
        self.send_json(
            status,
            {"Code": code, "Success": False, "Message": message, "RequestId": "stand-in", "Data": None},
        )


def revision_map(repository: Repository) -> dict[str, object]:
    def entries(names: dict[str, str]) -> list[dict[str, object]]:
        newest_first = sorted(names.items(), key=lambda item: -repository.commits[item[1]].seconds)
        return [
            {"Revision": name, "CreatedAt": repository.commits[key].seconds} for name, key in newest_first
        ]

    return {"RevisionMap": {"Branches": entries(repository.branches), "Tags": entries(repository.tags)}}


def commit_entry(commit: Commit) -> dict[str, object]:
    return {
        "Id": commit.id,
        "ShortId": commit.id[:8],
        "Title": commit.message,
        "Message": commit.message,
        "AuthorName": "lab",
        "AuthoredDate": commit.seconds,
        "CommitterName": "lab",
        "CommittedDate": commit.seconds,
        "ParentIds": [commit.parent] if commit.parent else [],
    }


def folders_of(commit: Commit) -> set[str]:
    parents = {str(parent) for path in commit.files for parent in PurePosixPath(path).parents}
    return parents - {"."}
