"""The download program, the real client, stand-in hubs: each fault ends in the right bytes or in a sentence.

No host is needed: the program runs as its unit would run it, with a directory of ours for /srv/models.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.lab.hubs import chat_model
from tests.lab.hubs.huggingface import HuggingFaceHandler
from tests.lab.hubs.modelscope import ModelScopeHandler
from tests.lab.hubs.repository import Repository
from tests.lab.hubs.wire import RequestLog, StandInServer

pytestmark = pytest.mark.lab

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


@pytest.fixture
def host(tmp_path: Path, modelscope: Path, hub: httpx.Client, published: Path) -> Iterator[Host]:
    made = Host(tmp_path / "models", modelscope, hub, published)
    made.asked()
    yield made
    made.switch()


@pytest.fixture
def huggingface(published: Path) -> Iterator[httpx.Client]:
    server = StandInServer(
        ("127.0.0.1", 0), HuggingFaceHandler, published, RequestLog(published / "requests.jsonl")
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False) as client:
        yield client
    server.shutdown()
    server.server_close()


# -- faults of the hub that end in the right bytes ----------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"cut": 1_500_000, "match": ".safetensors"},
        {"corrupt": f"{SHARD}:2000000", "corrupt_n": 1},
        {"status": 503, "status_n": 5},
        {"status": 429, "status_n": 5},
        {"status": 503, "status_n": 3, "match": SHARD},
    ],
    ids=lambda faults: "-".join(map(str, faults.values())) or "none",
)
def test_a_fault_that_passes_ends_in_the_right_bytes(host: Host, faults: dict[str, Any]) -> None:
    host.switch(**faults)
    code, output = host.run()
    assert code == 0, output
    assert host.has()
    assert f"{len(host.files())} files" in output and "all verified" in output


def test_a_second_run_asks_nobody_and_changes_nothing(host: Host) -> None:
    assert host.run()[0] == 0
    before = (host.model / "current" / ".bringup.json").read_bytes()
    host.asked()
    code, output = host.run()
    assert (code, host.asked()) == (0, [])
    assert "nothing to mend" in output
    assert (host.model / "current" / ".bringup.json").read_bytes() == before


def test_a_hub_that_is_down_at_the_start_is_waited_for(host: Host, published: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    late = f"http://127.0.0.1:{port}"
    process = host.start(host.job(places=[late], pinned_by=late, patience_seconds=60))
    time.sleep(3)
    server = StandInServer(
        ("127.0.0.1", port), ModelScopeHandler, published, RequestLog(published / "late.jsonl")
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    output, _ = process.communicate(timeout=120)
    server.shutdown()
    server.server_close()
    assert process.returncode == 0, output
    assert host.has()


def test_a_killed_download_goes_on_where_it_was(host: Host) -> None:
    host.switch(rate=1_000_000, match=".safetensors")
    process = host.start(host.job())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        growing = [path for path in host.model.rglob("*.incomplete") if path.stat().st_size > 1_000_000]
        if growing:
            break
        time.sleep(0.05)
    assert growing
    os.killpg(process.pid, signal.SIGKILL)  # as systemd kills a unit
    process.wait()
    host.switch()
    host.asked()
    assert host.nothing_published()
    assert host.run()[0] == 0
    assert host.has()
    assert [each for each in host.asked() if each["range"] and not each["range"].startswith("bytes=0-")]


def test_a_listing_without_hashes_is_taken_by_size_and_told(host: Host) -> None:
    host.switch(no_sha=True)
    code, output = host.run()
    assert (code, host.has()) == (0, True)
    assert "there is no sha256 for 11 of them, so only their sizes are" in output
    manifest = json.loads((host.model / "current" / ".bringup.json").read_text())
    assert {entry["listed"] for entry in manifest["files"].values()} == {False}
    assert manifest["files"][SHARD]["sha256"] == host.files()[SHARD]


def test_what_stands_in_the_way_is_cleared(host: Host) -> None:
    staging = host.model / ".staging.part"
    (staging / "config.json").mkdir(parents=True)
    (staging / "config.json" / "nested").write_text("x")
    size = host.repository.commits[host.commit()].files[SHARD].size
    (staging / SHARD).write_bytes(bytes(size))
    (staging / "extra" / "deep").mkdir(parents=True)
    (staging / "extra" / "deep" / "old.bin").write_text("stale")
    (staging / "tokenizer.json").symlink_to("/etc/passwd")
    code, output = host.run()
    assert code == 0, output
    assert host.has()
    assert Path("/etc/passwd").read_text().startswith("root")


# -- faults that end in a sentence --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "job", "sentence"),
    [
        ({"corrupt": f"{SHARD}:2000000"}, {}, f"gives {SHARD} with other bytes than listed"),
        ({"status": 503}, {"patience_seconds": 3}, "nobody lists its files"),
        ({"token": "right-token"}, {}, "lets nobody in without the right token"),
        ({}, {"model": "Qwen/Nope"}, "has no such model, revision or file"),
        ({}, {"commit": "0" * 40}, "has no such model, revision or file"),
        ({}, {"include": ["*.gguf"]}, "no file is left of it by include and exclude"),
    ],
)
def test_a_fault_that_stays_ends_in_one_sentence_and_nothing_is_published(
    host: Host, faults: dict[str, Any], job: dict[str, Any], sentence: str
) -> None:
    host.switch(**faults)
    code, output = host.run(**job)
    assert code == 1, output
    last = output.strip().splitlines()[-1]
    assert sentence in last and last.endswith(".")
    assert "Traceback" not in output
    assert host.nothing_published()


def test_a_hub_that_stays_down_ends_in_a_sentence(host: Host) -> None:
    code, output = host.run(places=["http://127.0.0.1:9"], pinned_by="http://127.0.0.1:9", patience_seconds=2)
    assert code == 1
    assert "nobody lists its files: http://127.0.0.1:9 does not answer" in output
    assert not host.model.exists()


def test_a_disk_without_room_is_seen_before_the_first_byte(host: Host) -> None:
    host.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", host.root], check=True)
    try:
        code, output = host.run()
        assert code == 1
        assert "0.06 GiB free, 1.01 GiB needed for the model. Make room there." in output
        assert host.fetched() == []
    finally:
        subprocess.run(["umount", host.root], check=True)


# -- what is published stays right --------------------------------------------------------------------------


def test_a_flipped_bit_is_mended_without_fetching_the_other_files_and_under_no_readers_feet(
    host: Host,
) -> None:
    assert host.run()[0] == 0
    shard = host.model / "current" / SHARD
    times = shard.stat()
    with shard.open("r+b") as stream:
        stream.seek(1_000_000)
        byte = stream.read(1)
        stream.seek(1_000_000)
        stream.write(bytes([byte[0] ^ 1]))
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    host.asked()
    with shard.open("rb") as reader:
        inode = os.fstat(reader.fileno()).st_ino
        code, output = host.run()
        assert code == 0, output
        assert host.fetched() == [SHARD]
        assert host.has()
        assert shard.stat().st_ino != inode and len(reader.read()) == times.st_size
    assert f"{SHARD} is not as it was verified and is fetched anew" in output


def test_a_commit_that_shares_files_with_another_fetches_only_the_others(host: Host) -> None:
    assert host.run(revision="v1")[0] == 0
    assert host.has("v1")
    host.asked()
    assert host.run()[0] == 0
    assert host.has()
    old, new = host.files("v1"), host.files()
    assert host.fetched() == sorted(path for path in new if new[path] != old.get(path))
    assert hashes(host.model / host.commit("v1")) == old


def test_only_wanted_files_come_and_another_is_added_without_fetching_them_again(host: Host) -> None:
    assert host.run(include=["*.json"], exclude=["tokenizer*"])[0] == 0
    there = set(hashes(host.model / "current"))
    assert there == {path for path in host.files() if path.endswith(".json") and "tokenizer" not in path}
    host.asked()
    assert host.run(include=["*.json", "README.md"], exclude=["tokenizer*"])[0] == 0
    assert host.fetched() == ["README.md"]
    assert set(hashes(host.model / "current")) == there | {"README.md"}


def test_a_rate_is_kept(host: Host) -> None:
    began = time.monotonic()
    code, output = host.run(max_rate_mbit=16)
    assert code == 0, output
    size = sum(file.size for file in host.repository.commits[host.commit()].files.values())
    assert time.monotonic() - began > size / 2_000_000 * 0.9
    assert host.has()


# -- places -------------------------------------------------------------------------------------------------


def test_a_token_opens_a_private_model_and_is_on_no_command_line(host: Host) -> None:
    host.switch(token="ms-right-token", rate=4_000_000)
    process = host.start(host.job(), MODELSCOPE_API_TOKEN="ms-right-token")
    seen = ""
    while process.poll() is None:
        for lines in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen += lines.read_text(errors="replace")
            except OSError:
                continue
        time.sleep(0.1)
    assert process.returncode == 0
    assert "fetch.py" in seen and "client.py" in seen
    assert "ms-right-token" not in seen


def test_hugging_face_is_read_page_by_page_and_its_token_goes_to_nobody_else(
    host: Host, huggingface: httpx.Client
) -> None:
    huggingface.post("/_lab", json={"token": "hf-right-token", "cut": 1_500_000, "match": "/cdn/"})
    place = f"huggingface+{str(huggingface.base_url).rstrip('/')}"
    job: dict[str, Any] = {"places": [place], "pinned_by": place}
    code, output = host.run(**job)
    assert code == 1 and "lets nobody in without the right token" in output
    code, output = host.run({"HF_TOKEN": "hf-right-token"}, **job)
    assert code == 0, output
    assert host.has()
    assert "no sha256 for 9 of them" in output  # git's own hash of small files was checked all the same
    redirected = [each for each in host.asked() if each["path"].startswith("/cdn/")]
    assert redirected and not any(each["token"] for each in redirected)


def test_a_place_with_wrong_bytes_is_helped_out_by_the_next(host: Host, huggingface: httpx.Client) -> None:
    host.switch(corrupt=f"{SHARD}:2000000")
    code, output = host.run(places=[host.endpoint, f"huggingface+{str(huggingface.base_url).rstrip('/')}"])
    assert code == 0, output
    assert host.has()


def test_a_web_server_over_another_hosts_models_is_a_mirror(host: Host, tmp_path: Path) -> None:
    assert host.run()[0] == 0
    shared = tmp_path / "www"
    host.root.rename(shared)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(shared))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        place = f"mirror+http://127.0.0.1:{server.server_port}"
        code, output = host.run(places=[place], pinned_by=place)
        server.shutdown()
    assert code == 0, output
    assert host.has()


def test_a_directory_of_the_host_is_copied_and_verified(host: Host, tmp_path: Path) -> None:
    assert host.run()[0] == 0
    nfs = tmp_path / "nfs"
    host.root.rename(nfs)
    place = f"host:{nfs}"
    assert host.run(places=[place], pinned_by=place)[0] == 0
    assert host.has()
    shutil.rmtree(host.root)
    (nfs / NAME / host.commit() / SHARD).write_bytes(b"half")
    code, output = host.run(places=[place], pinned_by=place, patience_seconds=2)
    assert code == 1 and f"({SHARD})" in output
    assert host.nothing_published()


def test_what_was_uploaded_is_verified_and_published(host: Host) -> None:
    staging = host.model / ".staging.part"
    staging.mkdir(parents=True)
    objects = host.published / "models" / NAME / "objects"
    listing = {}
    for path, file in host.repository.commits[host.commit()].files.items():
        shutil.copy(objects / file.sha256, staging / path)
        listing[path] = {"size": file.size, "sha256": file.sha256}
    (host.model / ".staging.part.json").write_text(json.dumps(listing))
    job: dict[str, Any] = {"places": ["operator:~/models"], "pinned_by": "operator:~/models"}
    (staging / SHARD).write_bytes(b"cut")
    code, output = host.run(**job)
    assert code == 1 and "has not uploaded all of it. Run again to go on" in output
    shutil.copy(objects / host.files()[SHARD], staging / SHARD)
    assert host.run(**job)[0] == 0
    assert hashes(host.model / "current") == host.files()
