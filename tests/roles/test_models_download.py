"""The download program, the real client, a stand-in hub: faults end in the right bytes or in a sentence."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.hubs.modelscope import ModelScopeHandler
from tests.lab.hubs.wire import RequestLog, StandInServer
from tests.roles.download_host import SHARD, Host, hashes

pytestmark = pytest.mark.lab


# -- faults of the hub that end in the right bytes ----------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"cut": 1_500_000, "match": ".safetensors"},
        {"corrupt": f"{SHARD}:2000000", "corrupt_n": 1},
        {"status": 503, "status_n": 5},
        {"status": 429, "status_n": 3},
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


def test_the_bytes_of_the_lock_come(host: Host) -> None:
    # a file that the hub has beside them stays out; where the lock knows no hash, the hub's counts
    locked = {path: sha256 for path, sha256 in host.files().items() if path != "README.md"}
    code, output = host.run(locked=locked | {"config.json": ""})
    assert code == 0, output
    assert hashes(host.model / host.commit()) == locked


def test_a_place_with_other_bytes_than_the_lock_is_refused_by_the_file_s_name(host: Host) -> None:
    code, output = host.run(locked=host.files() | {SHARD: "0" * 64})
    assert code == 1
    assert f"{host.endpoint} has other bytes of {SHARD} than the lock." in output
    assert "FilePath=" not in str(host.asked())
    code, output = host.run(locked=host.files() | {"more.json": "0" * 64})
    assert (code, host.nothing_published()) == (1, True)
    assert f"{host.endpoint} does not list more.json, which the lock has." in output


def test_bytes_that_no_place_says_the_hash_of_are_held_to_the_lock(host: Host) -> None:
    host.switch(no_sha=True)
    locked = host.files()
    assert host.run(locked=locked)[0] == 0
    manifest = json.loads((host.model / "current" / ".bringup.json").read_text())
    assert {entry["listed"] for entry in manifest["files"].values()} == {True}
    host.switch(no_sha=True, corrupt=f"{SHARD}:2000000", match=SHARD)
    other = host.model.with_name("other")
    code, output = host.run(locked=locked, directory=str(other), staging=f"{other}.part")
    assert code == 1
    assert f"gives {SHARD} with other bytes than listed" in output


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


def test_a_disk_that_fills_up_on_the_way_ends_in_a_sentence_and_goes_on_when_there_is_room(
    host: Host,
) -> None:
    host.root.mkdir()
    # room for bytes, but for ten files only: it is the same error
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g,nr_inodes=10", "none", host.root], check=True)
    try:
        code, output = host.run(patience_seconds=2)
        assert code == 1, output
        last = output.strip().splitlines()[-1]
        assert "No space left on device" in last and last.endswith("What is right stays; run again.")
        assert "Traceback" not in output
        assert host.nothing_published()
        subprocess.run(["mount", "-o", "remount,nr_inodes=1000", host.root], check=True)
        assert host.run()[0] == 0
        assert host.has()
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
