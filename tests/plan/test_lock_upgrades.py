"""What `--upgrade` moves, and that nothing else moves with it; models at their hub."""

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from plan import lock_diff, lock_make, lock_models, lock_upgrades
from plan.errors import SettingsError
from plan.lock import Lock
from plan.seen import Seen
from tests.lab.hubs.faults import Faults
from tests.lab.hubs.modelscope import ModelScopeHandler
from tests.lab.hubs.repository import Repository
from tests.lab.hubs.wire import RequestLog, StandInServer
from tests.plan import locks, wheel_index
from tests.plan.locks import BARE, GPU, MODEL, ONE, closure, listed, locked, tag
from tests.plan.test_lock import index, releases_of

__all__ = ["index"]
GPU_1 = Seen("gpu-1", ONE, GPU)
OLLAMA: Mapping[str, Any] = {"serve": {"a": {"engine": "ollama", "model": "qwen2.5:7b"}}}


def moved(old: Lock, seen: Seen, *upgrades: str) -> list[str]:
    """What an upgrade changes, without the name of the host."""
    made = locked(seen, old=old, upgrades=upgrades)
    assert not made.problems
    return [line.strip() for line in lock_diff.lines(old, made.lock)][1:]


class TestVllmAndTorch:
    before = locked(Seen("gpu-1", locks.settings(vllm="0.10.2"), GPU)).lock

    def test_stay_while_other_things_move(self) -> None:
        assert moved(self.before, GPU_1) == []
        assert moved(self.before, GPU_1, "certifi==2026.11.1") == [
            "package certifi 2026.10.18 becomes 2026.11.1"
        ]

    @pytest.mark.parametrize("name", ["vllm", "torch"])
    def test_move_together_to_what_the_tables_choose_now(self, name: str) -> None:
        lines = moved(self.before, GPU_1, name)
        assert "package vllm 0.10.2 becomes 0.32.0" in lines
        assert [line for line in lines if line.startswith("package torch ")]
        assert not [line for line in lines if "certifi" in line]

    def test_move_to_the_release_that_is_named(self) -> None:
        assert "package vllm 0.10.2 becomes 0.31.0" in moved(self.before, GPU_1, "vllm==0.31.0")

    def test_move_with_what_the_newer_one_needs_and_nothing_else(self, index: tuple[Path, str]) -> None:
        folder, url = index
        older = dataclasses.replace(GPU_1, data=locks.settings(vllm="0.31.0") | {"sources": {"wheels": url}})
        seen = dataclasses.replace(older, data=ONE | {"sources": {"wheels": url}})
        pins = releases_of(older)
        needs = {"vllm==0.31.0": ["certifi", "idna"], "certifi==1.0": [], "idna==1.0": []}
        wheel_index.publish(folder, pins | needs)
        first = lock_make.make([older], None, model=listed).lock
        newer: dict[str, list[str]] = {release: [] for release in releases_of(seen) if release not in pins}
        wheel_index.publish(folder, newer | {"vllm==0.32.0": ["certifi>=2", "idna"]})
        wheel_index.publish(folder, {"certifi==2.0": [], "idna==2.0": []})
        made = lock_make.make([seen], first, ("vllm",), listed)
        assert made.notes == made.problems == ()
        lines = list(lock_diff.lines(first, made.lock))
        assert "  package certifi 1.0 becomes 2.0" in lines
        assert "  package vllm 0.31.0 becomes 0.32.0" in lines
        assert not [line for line in lines if "idna" in line]


def test_python_moves_with_its_conda_packages_and_no_other() -> None:
    before = locked(dataclasses.replace(GPU_1, data={**ONE, "environment": {"python": "3.11"}})).lock
    assert moved(before, GPU_1) == []
    lines = moved(before, GPU_1, "python")
    assert lines[0].startswith("Python 3.11")
    assert all(line.startswith(("Python ", "conda package ")) for line in lines)


def test_ollama_moves_to_the_newest_or_to_the_release_that_is_named() -> None:
    older = Seen("small", {**OLLAMA, "sources": {"ollama_version": "0.35.1"}}, BARE)
    before, now = locked(older).lock, Seen("small", OLLAMA, BARE)
    assert moved(before, now) == []
    assert moved(before, now, "ollama") == ["Ollama 0.35.1 x86_64 becomes 0.40.2 x86_64"]
    assert moved(before, now, "ollama==0.40.1") == ["Ollama 0.35.1 x86_64 becomes 0.40.1 x86_64"]


@pytest.mark.parametrize(
    ("upgrade", "words"),
    [("nothing", "the lock has no nothing"), ("packages==1", "packages moves to what its source has")],
)
def test_what_has_nothing_to_move_is_refused(upgrade: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        lock_upgrades.check((upgrade,), locked(GPU_1).lock)
    assert words in refused.value.sentences[0]


class Hub:
    """A stand-in hub with one model, to which commits are added."""

    def __init__(self, root: Path, server: StandInServer) -> None:
        self.root, self.server = root, server
        self.url = f"http://127.0.0.1:{server.server_port}"

    def commit(self, **files: str) -> str:
        folder = self.root / "models" / MODEL
        source = self.root / "source"
        for name, text in files.items():
            source.mkdir(exist_ok=True)
            (source / name).write_text(text)
        repository = Repository.load(folder) or Repository()
        found = repository.commit(source, folder / "objects", "newer", 1_700_000_000)
        repository.save(folder)
        return found.id

    def seen(self, **models: Any) -> Seen:
        data = {**ONE, "sources": {"models": self.url}, "models": models}
        return Seen("gpu-1", data, GPU)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = StandInServer(("127.0.0.1", 0), ModelScopeHandler, tmp_path, RequestLog(tmp_path / "log"))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield Hub(tmp_path, server)
    server.shutdown()
    server.server_close()


class TestAModel:
    def lock(self, seen: Seen, old: Lock | None = None, *upgrades: str) -> lock_make.Made:
        return lock_make.make([seen], old, upgrades, lock_models.listed, tag, closure)

    def test_stays_at_its_commit_until_it_is_upgraded(self, hub: Hub) -> None:
        first_commit = hub.commit(config="{}", weights="one")
        first = self.lock(hub.seen()).lock
        (held,) = first.model.values()
        assert (held.commit, held.files["weights"].size) == (first_commit, 3)
        second_commit = hub.commit(weights="other")
        assert self.lock(hub.seen(), first).lock == first
        after = self.lock(hub.seen(), first, MODEL).lock
        assert [line.strip() for line in lock_diff.lines(first, after)][1:] == [
            f"model {MODEL}@master moves from commit {first_commit} to {second_commit}",
            f"model {MODEL}@master: 1 files differ: weights",
        ]

    def test_that_is_private_is_listed_with_its_token(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.commit(config="{}")
        hub.server.faults.replace(Faults(token="right-token"))
        monkeypatch.setenv("HUB_TOKEN", "right-token")
        made = self.lock(hub.seen(token_env="HUB_TOKEN"))
        assert not made.problems
        assert [list(model.files) for model in made.lock.model.values()] == [["config"]]

    def test_that_is_private_is_refused_without_its_token_in_one_sentence(self, hub: Hub) -> None:
        hub.commit(config="{}")
        hub.server.faults.replace(Faults(token="right-token"))
        made = self.lock(hub.seen())
        assert made.problems == (
            f"gpu-1: {hub.url} lets nobody read {MODEL} without the right token. "
            "Set models.token_file to a file that holds it.",
        )
