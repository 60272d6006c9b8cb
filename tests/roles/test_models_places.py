"""Where the download program takes a model from: private hubs, mirrors, directories, an upload."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.lab.hubs import proxy
from tests.lab.hubs.huggingface import HuggingFaceHandler
from tests.lab.hubs.wire import RequestLog, StandInServer
from tests.roles.download_host import NAME, SHARD, Host, hashes

pytestmark = pytest.mark.lab


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


def test_the_operators_machine_is_asked_in_its_turn_for_what_a_hub_gives_wrongly(host: Host) -> None:
    host.switch(corrupt=f"{SHARD}:2000000")
    places = [host.endpoint, "operator:~/models"]
    code, output = host.run({"BRINGUP_OPERATOR": "1"}, places=places)
    assert code == 1
    assert "1 files are wanted from the operator's machine" in output.splitlines()[-1]
    assert (host.model / ".staging.part.wanted").read_text() == f"{SHARD}\n"
    objects = host.published / "models" / NAME / "objects"
    shutil.copy(objects / host.files()[SHARD], host.model / ".staging.part" / SHARD)
    host.asked()
    assert host.run(places=places)[0] == 0
    assert host.fetched() == []
    assert host.has()


@pytest.mark.parametrize("max_rate_mbit", [None, 400])
def test_every_byte_comes_through_the_proxy_which_wants_a_password(
    host: Host, max_rate_mbit: int | None
) -> None:
    with proxy.serve(host.endpoint, "ops:p@ss word") as (address, seen):
        place = "http://hub.invalid"  # nobody but the proxy knows it
        job: dict[str, Any] = {"places": [place], "pinned_by": place, "max_rate_mbit": max_rate_mbit}
        refused = {"http_proxy": f"http://ops:wrong@{address}"}
        code, output = host.run(refused, **job, patience_seconds=2)
        assert code == 1 and "407" in output
        code, output = host.run({"http_proxy": f"http://ops:p%40ss%20word@{address}"}, **job)
        assert code == 0, output
    assert host.has()
    assert sum(seen) > sum(file.size for file in host.repository.commits[host.commit()].files.values())


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
    # what a later look finds damaged is all that is wanted of the operator's machine
    (host.model / "current" / SHARD).write_bytes(b"rotten")
    code, output = host.run({"BRINGUP_OPERATOR": "1"}, **job)
    assert code == 1 and "1 files are wanted from the operator's machine" in output
    assert Path(f"{staging}.wanted").read_text() == f"{SHARD}\n"
