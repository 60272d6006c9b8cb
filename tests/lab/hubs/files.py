"""Static files for the lab's hosts: wheels/, conda/, installers/ and ollama/ of the root, nothing else."""

from __future__ import annotations

import mimetypes
from urllib.parse import urlsplit

from tests.lab.hubs.wire import Content, StandInHandler

SERVED = ("wheels", "conda", "installers", "ollama")


class FileHandler(StandInHandler):
    """`GET /wheels/` gives its index.html; other folders are not listed."""

    def answer(self) -> None:
        relative = urlsplit(self.url).path.lstrip("/")
        path = (self.server.root / relative).resolve()
        if path.is_dir():
            path /= "index.html"
        allowed = any(path.is_relative_to((self.server.root / part).resolve()) for part in SERVED)
        if not allowed or not path.is_file():
            self.send_json(404, {"error": f"there is no file /{relative}"})
            return
        stat = path.stat()
        etag = f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        self.send_content(Content(path, relative, etag, kind))
