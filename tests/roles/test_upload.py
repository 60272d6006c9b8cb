"""Sending from the operator's machine: what is there is not sent again, unless it is another file's."""

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from ops import upload
from ops.remote import Answer, Remote


class Here(Remote):
    """This machine for the host."""

    def __init__(self) -> None:
        """Without a connection."""

    def run(self, script: str, stdin: str | None = None) -> Answer:
        done = subprocess.run(
            ["sh", "-c", script], input=stdin or "", capture_output=True, text=True, check=False
        )
        return Answer(not done.returncode, done.stdout)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"from the first to the last")
    return path


@pytest.mark.parametrize(
    ("there", "offset"),
    [
        (b"", 0),
        (b"from the first", 14),
        (b"from the first to the last", 26),
        (b"of another file", None),
        (b"from the first to the last and more", None),
    ],
    ids=["begun", "half", "whole", "another", "longer"],
)
def test_what_the_source_begins_with_is_not_sent_again(
    there: bytes, offset: int | None, source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a folder's"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a name").write_bytes(there)
    (folder / "nobody's").write_bytes(there)
    found = upload.already(Here(), str(folder), {"below/a name": source, "lacking": source})
    assert found == ({} if offset is None else {"below/a name": offset})


def test_an_empty_file_is_sent_too(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    me = pwd.getpwuid(os.getuid()).pw_name
    for start, piece in upload.pieces(tmp_path / "empty", 0):
        upload.append(Here(), str(tmp_path / "there"), start, piece, owner=me)
    assert (tmp_path / "there").read_bytes() == b""
