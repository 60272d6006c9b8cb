"""What an earlier download left is gone on with where it is right, and neither counted nor kept where not."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ops import pins
from ops.render import TEMPLATES
from tests.roles import download_host

NAMES = ("disk", "fetch", "meeting", "places", "share", "swarm", "throttle")
WEIGHTS = "model.safetensors"
LARGE = 17 << 20


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The download's modules, as they import one another on a host."""
    monkeypatch.syspath_prepend(str(TEMPLATES / "models"))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in NAMES:
        sys.modules.pop(name, None)


class Source:
    """A directory of models on the host, with or without a manifest, and where its model is brought to."""

    def __init__(self, root: Path) -> None:
        self.folder, self.model = root / "mnt/Org/Name", root / "srv/Org/Name"
        self.place, self.staging = f"host:{root}/mnt", root / "srv/Org/Name/.name.part"
        self.folder.mkdir(parents=True)
        self.staging.mkdir(parents=True)

    def has(self, files: Mapping[str, bytes], commit: str | None = None) -> str:
        """Puts files there, with a manifest of their hashes where a commit is given; returns the commit."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for path, content in files.items():
            (self.folder / path).write_bytes(content)
        if commit:
            listed = {path: entry(content) for path, content in files.items()}
            text = {"model": "Org/Name", "commit": commit, "include": [], "exclude": [], "files": listed}
            (self.folder / ".bringup.json").write_text(json.dumps(text))
            return commit
        look = pins.LOOK.format(folder=self.folder, current="current")
        said = subprocess.run(["sh", "-c", look], capture_output=True, text=True, check=True)
        return hashlib.sha1(said.stdout.strip().encode()).hexdigest()

    def job(self, commit: str, **changes: Any) -> dict[str, Any]:
        return {
            "model": "Org/Name",
            "revision": "master",
            "commit": commit,
            "directory": str(self.model / commit),
            "staging": str(self.staging),
            "places": [self.place],
            "pinned_by": self.place,
            "include": [],
            "exclude": [],
            "locked": {},
            "patience_seconds": 2,
            "max_rate_mbit": None,
        } | changes


def entry(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "mtime_ns": 1}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def test_bytes_of_another_commit_are_not_taken_for_this_one_s_where_no_hash_tells(
    programs: Any, source: Source
) -> None:
    before = source.has({WEIGHTS: b"1" * 1000, "config.json": b"1" * 10})
    cut = {WEIGHTS: {"size": 1000, "sha256": None}}
    programs.disk.hold_to(source.staging, cut, before)
    shutil.copyfile(source.folder / WEIGHTS, source.staging / WEIGHTS)
    programs.disk.hold_to(source.staging, cut, before)
    assert (source.staging / WEIGHTS).exists()
    now = source.has({WEIGHTS: b"2" * 1000, "config.json": b"2" * 10})
    programs.fetch.main(source.job(now))
    published = {path.name: path.read_bytes()[:1] for path in (source.model / now).iterdir()}
    assert published == {WEIGHTS: b"2", "config.json": b"2", ".bringup.json": b"{"}


def test_what_is_no_part_of_the_model_any_more_is_no_progress(
    programs: Any, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(2 << 20)
    commit = source.has({WEIGHTS: content, "cut.safetensors": content}, "a" * 40)
    # as an aria2 that was killed leaves it
    (source.staging / "cut.safetensors").write_bytes(content[: 1 << 20])
    (source.staging / "of-another-commit.safetensors").write_bytes(content)
    (source.staging / WEIGHTS).write_bytes(b"x" * len(content))
    beginning = source.staging / f"{WEIGHTS}.incomplete"
    beginning.write_bytes(content[: 1 << 20])
    room = programs.fetch.RESERVE_BYTES + (5 << 19)
    monkeypatch.setattr(programs.disk, "free", lambda _: room)
    with pytest.raises(SystemExit, match="Make room there"):
        programs.fetch.main(source.job(commit))
    assert beginning.exists()
    room += 1 << 19
    programs.fetch.main(source.job(commit))
    assert (source.model / commit / WEIGHTS).read_bytes() == content


def test_a_published_file_is_not_changed_through_what_a_cut_download_linked(
    programs: Any, source: Source
) -> None:
    first = source.has({"config.json": b"1"}, "a" * 40)
    programs.fetch.main(source.job(first))
    source.staging.mkdir()
    programs.disk.adopt(source.staging, source.model / ("b" * 40), {"config.json": entry(b"1")})
    assert (source.staging / "config.json").stat().st_nlink == 2
    programs.disk.adopt(source.staging, source.model / ("c" * 40), {"config.json": entry(b"2")})
    assert not (source.staging / "config.json").exists()


def test_where_nothing_is_to_be_mended_no_staging_directory_stays(programs: Any, source: Source) -> None:
    commit = source.has({WEIGHTS: b"1"}, "a" * 40)
    programs.fetch.main(source.job(commit))
    source.staging.mkdir()
    (source.staging / WEIGHTS).write_bytes(b"1")
    programs.fetch.main(source.job(commit))
    assert not source.staging.exists()


@pytest.mark.skipif(not shutil.which("aria2c"), reason="needs aria2")
def test_a_seed_whose_fellow_died_publishes_what_it_pulled_by_itself(source: Source) -> None:
    files = {f"{letter}.safetensors": os.urandom(LARGE) for letter in "ab"}
    commit = source.has(files, "a" * 40)
    seeds = ["127.0.0.1", "127.0.0.2"]
    share = {"me": seeds[0], "seeds": seeds, "peers": seeds, "expected": seeds, "port": a_free_port()}
    done = subprocess.run(
        [sys.executable, "-B", str(download_host.PROGRAM), json.dumps(source.job(commit))],
        env=os.environ
        | {"BRINGUP_SHARE": json.dumps(share | {"first_word_seconds": 1, "silence_seconds": 1})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing comes over the LAN any more: 1 files are pulled here" in done.stdout
    assert download_host.hashes(source.model / "current").keys() == files.keys()


def a_free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.skipif(not shutil.which("aria2c"), reason="needs aria2")
def test_an_aria2_that_died_ends_no_download(programs: Any, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"1")
    swarm = programs.swarm.Swarm("127.0.0.1", a_free_port(), 2)
    swarm.stop()
    swarm.seed(
        WEIGHTS, tmp_path / WEIGHTS, programs.swarm.torrent_of(tmp_path / WEIGHTS, "http://127.0.0.1:1")
    )
    assert swarm.finished() == []


def test_a_meeting_point_that_dies_in_mid_sentence_has_said_nothing(programs: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        member = programs.share.Member.__new__(programs.share.Member)
        member.me, member.seeds, member.port = "127.0.0.2", ["127.0.0.1"], server.getsockname()[1]
        assert member.ask({}) is None


@pytest.mark.parametrize(("read", "code"), [(80 << 20, 0), (1 << 20, -9)], ids=["hashes", "asks again"])
def test_a_client_that_reads_what_is_there_is_not_stalled(
    read: int, code: int, programs: Any, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs.places, "STALL_SECONDS", 1.5)
    program = f"import time\nfor _ in range(4): open('/dev/zero', 'rb').read({read}); time.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        programs.places.end_when_stalled(process, source.staging)
    assert process.returncode == code
