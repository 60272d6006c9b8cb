"""`python -m plan bundle`: everything that a lock names, each file checked, from where a cut run stopped."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from plan import bundle, bundle_fetch, lock
from plan.__main__ import main
from plan.errors import PlanError
from tests.plan import bundles
from tests.plan.bundles import COMMIT, MODEL, WHEEL, Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with bundles.served(tmp_path) as made:
        yield made


def collect(fleet: Fleet, *words: str) -> int:
    return main(["bundle", str(fleet.lock), str(fleet.folder / "out"), *words])


def index(fleet: Fleet) -> dict[str, str]:
    return bundle.parse((fleet.folder / "out" / bundle.INDEX).read_text())


def test_it_has_everything_that_the_lock_names_and_an_index_that_any_tool_can_check(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(fleet) == 0
    out = fleet.folder / "out"
    assert sorted(index(fleet)) == [
        "conda/linux-64/own-1-0.conda",
        "conda/noarch/tz-1-0.conda",
        "installers/miniforge.sh",
        f"models/{MODEL}/{COMMIT}/.bringup.json",
        f"models/{MODEL}/{COMMIT}/again.safetensors",
        f"models/{MODEL}/{COMMIT}/model.safetensors",
        "ollama/v0.40.2/ollama-linux-amd64.tar.zst",
        "packages/debian12-x86_64/Packages",
        "packages/debian12-x86_64/tiny_1.0-1_all.deb",
        f"wheels/{WHEEL}",
        "wheels/loose_b-1.0-py3-none-any.whl",
        "wheels/uv-0.13.9-py3-none-any.whl",
    ]
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", bundle.INDEX], cwd=out, check=True)
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        *index(fleet),
        bundle.INDEX,
    }
    said = capsys.readouterr().out
    assert "models             1 files      1.0 MiB" in said
    assert f"{out}: 12 files, all verified" in said


def test_the_same_bytes_are_fetched_once(fleet: Fleet) -> None:
    collect(fleet)
    assert sum(url.endswith(".safetensors") for url in fleet.asked()) == 1


def test_apt_reads_the_packages(fleet: Fleet, tmp_path: Path) -> None:
    collect(fleet)
    folder = fleet.folder / "out/packages/debian12-x86_64"
    sources = tmp_path / "sources.list"
    sources.write_text(f"deb [trusted=yes] file:{folder} ./\n")
    (tmp_path / "state/lists/partial").mkdir(parents=True)
    options = [
        f"Dir::Etc::SourceList={sources}",
        "Dir::Etc::SourceParts=/dev/null",
        f"Dir::State={tmp_path}/state",
    ]
    options += ["Dir::State::status=/dev/null", f"Dir::Cache={tmp_path}/state", "APT::Sandbox::User=root"]
    words = [word for option in options for word in ("-o", option)]
    subprocess.run(["apt-get", "-qq", *words, "update"], check=True)
    said = subprocess.run(["apt-cache", *words, "show", "tiny"], check=True, capture_output=True, text=True)
    assert "Version: 1:1.0-1" in said.stdout
    assert "Filename: ./tiny_1.0-1_all.deb" in said.stdout


def test_a_second_run_fetches_nothing_and_changes_nothing(fleet: Fleet) -> None:
    collect(fleet)
    before, asked = index(fleet), len([url for url in fleet.asked() if "/simple" not in url])
    assert collect(fleet) == 0
    assert index(fleet) == before
    assert len([url for url in fleet.asked() if "/simple" not in url]) == asked


def test_a_cut_download_goes_on_where_it_stopped(fleet: Fleet) -> None:
    fleet.fault(cut=400_000, match=".safetensors")
    assert collect(fleet, "--only", "models") == 0
    rows = [json.loads(line) for line in (fleet.folder / "requests.jsonl").read_text().splitlines()]
    sent = sum(row["sent_bytes"] for row in rows if row["path"].endswith(".safetensors"))
    assert sent < 1.2 * len(bundles.WEIGHTS)


def test_a_killed_run_goes_on_where_it_was(fleet: Fleet) -> None:
    fleet.fault(rate=200_000, match=".safetensors")
    out = fleet.folder / "out"
    command = [sys.executable, "-m", "plan", "bundle", str(fleet.lock), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (come := sum(path.stat().st_size for path in out.rglob("*.safetensors.part"))) > 300_000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    fleet.fault()
    assert collect(fleet) == 0
    rows = [json.loads(line) for line in (fleet.folder / "requests.jsonl").read_text().splitlines()]
    *_, last = (row for row in rows if row["path"].endswith(".safetensors"))
    assert last["range"] and last["sent_bytes"] <= len(bundles.WEIGHTS) - come
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("begun", [b"x", b"x" * 1000, b"x" * 10_000_000], ids=len)
def test_the_beginning_of_another_file_is_not_gone_on_with(fleet: Fleet, begun: bytes) -> None:
    part = fleet.folder / f"out/models/{MODEL}/{COMMIT}/again.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(begun)
    assert collect(fleet, "--only", "models") == 0
    assert part.with_suffix("").read_bytes() == bundles.WEIGHTS
    assert not list((fleet.folder / "out").rglob("*.part"))


def test_a_disk_need_have_room_for_what_is_still_to_come_alone(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = fleet.folder / f"out/models/{MODEL}/{COMMIT}/again.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bundles.WEIGHTS[:-1000])
    # and for a second file with the same bytes, on a disk without links
    usage = SimpleNamespace(free=len(bundles.WEIGHTS) + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert collect(fleet, "--only", "models") == 0


def test_what_was_damaged_on_the_disk_is_fetched_anew(fleet: Fleet) -> None:
    collect(fleet)
    path = fleet.folder / "out/ollama/v0.40.2/ollama-linux-amd64.tar.zst"
    path.write_bytes(b"0llama")
    assert collect(fleet) == 0
    assert path.read_bytes() == b"ollama"


def test_other_bytes_than_the_lock_has_are_refused_by_name(
    fleet: Fleet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the default channel is asked next, and need not be there
    monkeypatch.setattr(bundle_fetch, "_PAUSES_SECONDS", ())
    fleet.fault(corrupt="model.safetensors:5", match="safetensors")
    (fleet.root / "channel/noarch/tz-1-0.conda").write_bytes(b"xx")
    assert collect(fleet) == 1
    said = capsys.readouterr().err
    assert "bundle: conda/noarch/tz-1-0.conda: " in said and "other bytes than the lock has" in said
    assert "conda/noarch/tz-1-0.conda" not in index(fleet)
    assert f"wheels/{WHEEL}" in index(fleet)


def test_sizes_are_said_without_fetching(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect(fleet, "--sizes") == 0
    assert "installers         1 files" in capsys.readouterr().out
    assert not (fleet.folder / "out").exists()


def test_a_place_that_cannot_be_written_is_refused_in_a_sentence(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    (fleet.folder / "file").touch()
    assert main(["bundle", str(fleet.lock), str(fleet.folder / "file" / "out")]) != 0
    said = capsys.readouterr().err
    assert "bundle: " in said and "Not a directory. Name a directory to write to." in said


def test_parts_add_up_to_a_whole(fleet: Fleet) -> None:
    assert collect(fleet, "--only", "wheels") == 0
    assert {path.partition("/")[0] for path in index(fleet)} == {"wheels"}
    others = [word for kind in bundle.KINDS if kind != "wheels" for word in ("--only", kind)]
    assert collect(fleet, *others) == 0
    parts = index(fleet)
    assert collect(fleet) == 0
    assert index(fleet) == parts


def test_a_host_takes_only_what_is_its_own(fleet: Fleet) -> None:
    held = lock.read(fleet.lock)
    kinds = {name: {file.kind for file in bundle.of_host(held, name)} for name in held.hosts}
    assert kinds["gpu-1"] == {"wheels", "conda", "installers", "models", "packages"}
    assert kinds["gpu-2"] == {"wheels", "conda", "installers", "ollama", "packages"}


def test_two_files_of_one_name_do_not_share_a_path(fleet: Fleet) -> None:
    held = lock.read(fleet.lock)
    text = lock.render(held, "x")
    other = lock.parse(text.replace(held.stack["one"].wheels["loose-a==1.0"][0].sha256, "a" * 64), "x")
    both = held.model_copy(
        update={
            "stack": held.stack | {"two": other.stack["one"]},
            "hosts": held.hosts | {"gpu-3": held.hosts["gpu-2"].model_copy(update={"stack": "two"})},
        }
    )
    paths = [file.path for file in bundle.files(both) if file.name == WHEEL]
    assert f"wheels/{'a' * 12}/{WHEEL}" in paths and len(set(paths)) == 2
    # and what both stacks have is taken by the hosts of both
    wheels = [file.path for file in bundle.of_host(both, "gpu-3") if file.kind == "wheels"]
    assert wheels == [f"wheels/{'a' * 12}/{WHEEL}", "wheels/loose_b-1.0-py3-none-any.whl"]


@pytest.mark.parametrize("line", ["nonsense", f"{'a' * 64}  ../etc/passwd", f"{'a' * 64}  /etc/passwd"])
def test_an_index_with_something_else_in_it_is_refused(line: str) -> None:
    with pytest.raises(PlanError, match="is no entry"):
        bundle.parse(f"{line}\n")
