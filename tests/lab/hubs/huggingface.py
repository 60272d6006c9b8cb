"""Stand-in for the Hugging Face hub: the HTTP paths by which a mirror of it is read.

Shapes are those of its hub API: a revision's `sha`; the tree with git's `oid` of every file and `lfs.oid`
(sha256) of large ones, a page at a time with a `Link` to the next; a redirect elsewhere for large files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.lab.hubs.modelscope import LFS_BYTES
from tests.lab.hubs.repository import Commit, Repository
from tests.lab.hubs.wire import Content, StandInHandler

PAGE_ENTRIES = 4  # the real one sends 1000; pages must be followed


class HuggingFaceHandler(StandInHandler):
    def answer(self) -> None:
        path = urlsplit(self.url).path.strip("/").split("/")
        if path[0] == "cdn":
            self.send_object(path[1:3], path[3])
        elif self.faults.token and self.headers.get("Authorization") != f"Bearer {self.faults.token}":
            self.send_json(401, {"error": "Invalid username or password."})
        elif path[:2] == ["api", "models"] and len(path) > 5:
            self.answer_api(path[2:4], path[4], path[5])
        elif len(path) > 4 and path[2] == "resolve":
            self.resolve(path[:2], path[3], "/".join(path[4:]))
        else:
            self.send_json(404, {"error": "Sorry, we can't find the page you are looking for."})

    def answer_api(self, name: list[str], verb: str, revision: str) -> None:
        commit = self.commit(name, revision)
        if commit is None:
            self.send_json(404, {"error": f"Invalid rev id: {revision}"})
        elif verb == "revision":
            self.send_json(200, {"id": "/".join(name), "sha": commit.id})
        else:
            self.send_tree(name, commit)

    def commit(self, name: list[str], revision: str) -> Commit | None:
        repository = Repository.load(self.folder(name))
        name_here = "master" if revision == "main" else revision
        return repository.resolve(name_here) if repository else None

    def folder(self, name: list[str]) -> Path:
        return self.server.root / "models" / name[0] / name[1]

    def send_tree(self, name: list[str], commit: Commit) -> None:
        first = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        entries: list[object] = []
        for path, file in sorted(commit.files.items())[first : first + PAGE_ENTRIES]:
            data = (self.folder(name) / "objects" / file.sha256).read_bytes()
            oid = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            entry: dict[str, object] = {"type": "file", "path": path, "size": file.size, "oid": oid}
            if file.size >= LFS_BYTES:
                entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 132}
            entries.append(entry)
        if first + PAGE_ENTRIES < len(commit.files):
            address = f"http://{self.headers['Host']}{urlsplit(self.path).path}"
            self.link = f'<{address}?recursive=true&cursor={first + PAGE_ENTRIES}>; rel="next"'
        self.send_json(200, entries)

    link: str | None = None

    def end_headers(self) -> None:
        if self.link:
            self.send_header("Link", self.link)
            self.link = None
        super().end_headers()

    def resolve(self, name: list[str], revision: str, path: str) -> None:
        commit = self.commit(name, revision)
        file = commit.files.get(path) if commit else None
        if file is None:
            self.send_json(404, {"error": "Entry not found"})
        elif file.size < LFS_BYTES:
            self.send_content(Content(self.folder(name) / "objects" / file.sha256, path, file.sha256))
        else:
            # another name of this server is another server to a client
            self.send_response(302)
            port = self.server.server_port
            self.send_header("Location", f"http://localhost:{port}/cdn/{'/'.join(name)}/{file.sha256}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.note(302, 0)

    def send_object(self, name: list[str], sha256: str) -> None:
        self.send_content(Content(self.folder(name) / "objects" / sha256, sha256, sha256))
