"""Faults that a test switches on while a stand-in server runs.

`POST /_lab` with a JSON object replaces all faults, `{}` clears them, `GET /_lab` returns them.
"""

from __future__ import annotations

import threading

from pydantic import BaseModel, ConfigDict, Field


class Faults(BaseModel):
    """What goes wrong, for every response whose URL contains `match` (all of them by default)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rate: int | None = Field(default=None, gt=0, description="bytes per second of each response body")
    corrupt: str | None = Field(
        default=None, pattern=r"^.+:\d+$", description="FILE:OFFSET, the byte that arrives with a flipped bit"
    )
    corrupt_n: int | None = Field(default=None, ge=0, description="how many answers; all of them")
    cut: int | None = Field(
        default=None, ge=0, description="the connection is closed after this many body bytes"
    )
    delay: float | None = Field(default=None, ge=0, le=600, description="seconds before the answer starts")
    status: int | None = Field(default=None, ge=400, le=599, description="HTTP status instead of the answer")
    status_n: int | None = Field(default=None, ge=0, description="how many answers get `status`; all of them")
    no_range: bool = Field(default=False, description="Range is ignored: 200 and the whole file")
    no_sha: bool = Field(default=False, description="file lists come without Sha256")
    token: str | None = Field(default=None, description="only this access token is let in")
    match: str = Field(default="", description="part of the URL, percent-decoded")

    def corrupt_offset(self, name: str) -> int | None:
        """The offset of the byte to flip in the file called `name`, if that is the corrupted one."""
        file, _, offset = (self.corrupt or ":").rpartition(":")
        return int(offset) if file and name.endswith(file) else None


class FaultSwitch:
    """The faults in force; safe to use from the threads of a server."""

    def __init__(self) -> None:
        self._faults = Faults()
        self._lock = threading.Lock()

    def replace(self, faults: Faults) -> None:
        with self._lock:
            self._faults = faults

    def current(self) -> Faults:
        with self._lock:
            return self._faults

    def for_url(self, url: str) -> Faults:
        """The faults for one request; those of another URL are left out (the token guards every URL)."""
        faults = self.current()
        return faults if faults.match in url else Faults(token=faults.token, no_sha=faults.no_sha)

    def take_corruption(self, name: str) -> int | None:
        """The offset to flip in an answer with this file, counting `corrupt_n` down."""
        with self._lock:
            offset = self._faults.corrupt_offset(name)
            if offset is None or self._faults.corrupt_n == 0:
                return None
            if self._faults.corrupt_n is not None:
                self._faults = self._faults.model_copy(update={"corrupt_n": self._faults.corrupt_n - 1})
            return offset

    def take_status(self, url: str) -> int | None:
        """The status to answer with instead, counting `status_n` down."""
        with self._lock:
            faults = self._faults
            if faults.status is None or faults.match not in url or faults.status_n == 0:
                return None
            if faults.status_n is not None:
                self._faults = faults.model_copy(update={"status_n": faults.status_n - 1})
            return faults.status
