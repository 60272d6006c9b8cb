"""The lock: what stands in it, that it stays as it is, what moves it, and what a host may not leave."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plan import compat, lock, lock_diff, lock_make, locking, settings, uv
from plan.__main__ import main
from plan.errors import PlanError, SettingsError
from plan.host import EnvironmentPlan, HostPlan
from plan.lock import Lock
from plan.seen import Seen
from tests.plan import locks, wheel_index
from tests.plan.locks import BARE, GPU, ONE, closure, listed, locked, tag

GPU_1 = Seen("gpu-1", ONE, GPU)
GPU_2 = Seen("gpu-2", ONE, GPU)
OLLAMA = Seen("small", {"serve": {"a": {"engine": "ollama", "model": "qwen2.5:7b"}}}, BARE)
OLD = Seen("old", locks.settings(vllm="0.10.2"), GPU)


def applied(seen: Seen, held: Lock, **changed: Any) -> HostPlan:
    """The plan of a host under a lock, as a deploy makes it."""
    wanted = settings.read([{**seen.data, **changed}])
    plan = seen.plan(locking.held(wanted, seen.host, held))
    return locking.apply(plan, wanted, seen.parsed(), held, "prod.lock")


def drift(seen: Seen, held: Lock, **changed: Any) -> str:
    with pytest.raises(PlanError) as refused:
        applied(seen, held, **changed)
    (sentence,) = refused.value.sentences
    return sentence


class TestTheFile:
    made = locked(GPU_2, OLLAMA, OLD, GPU_1).lock
    text = lock.render(made, "prod.py")

    def test_says_what_it_says_when_it_is_read_again(self) -> None:
        assert lock.parse(self.text, "prod.lock") == self.made
        assert lock.render(lock.parse(self.text, "prod.lock"), "prod.py") == self.text

    def test_does_not_depend_on_the_order_of_the_hosts(self) -> None:
        assert lock.render(locked(GPU_1, OLD, GPU_2, OLLAMA).lock, "prod.py") == self.text

    def test_has_hosts_that_get_the_same_share_one_stack(self) -> None:
        assert len(self.made.stack) == 2
        assert self.made.hosts["gpu-1"] == self.made.hosts["gpu-2"]

    def test_holds_every_hash_and_says_what_made_each_part(self) -> None:
        stack = self.made.stack[str(self.made.hosts["old"].stack)]
        assert stack.pins["vllm"]["vllm"] == "0.10.2"
        assert all(hashed.startswith("sha256:") for hashed in stack.conda.values())
        assert stack.wheels["certifi==2026.10.18"][0].sha256
        assert "pip compile" in stack.made_by
        archive = self.made.ollama[str(self.made.hosts["small"].ollama)]
        assert (len(archive.sha256), archive.made_by) == (64, "plan/ollama.toml")

    def test_names_no_package_index(self) -> None:
        assert "/simple" not in self.text

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (("format = 1", "format = 9"), "is of format 9"),
            (("a" * 64, "a" * 63), "should match pattern"),
            (("[hosts]", "[hosts"), "Expected"),
            (("[hosts]\n", '[hosts]\n"x" = { stack = "none" }\n'), 'lacks stack."none"'),
        ],
    )
    def test_is_refused_in_one_sentence_when_it_is_damaged(self, damage: tuple[str, str], words: str) -> None:
        with pytest.raises(SettingsError) as refused:
            lock.parse(self.text.replace(*damage), "prod.lock")
        (sentence,) = refused.value.sentences
        assert sentence.startswith("lock: prod.lock: ")
        assert words in sentence


class TestMadeAgain:
    first = locked(GPU_1, OLLAMA, OLD).lock

    def test_is_the_same_to_the_byte(self) -> None:
        again = locked(OLD, GPU_1, OLLAMA, old=self.first).lock
        assert lock.render(again, "prod.py") == lock.render(self.first, "prod.py")

    def test_asks_no_index_for_stacks_that_it_has(self) -> None:
        def never(*_: Any, **__: Any) -> Any:
            raise AssertionError("asked")

        assert not lock_make.make([GPU_1, OLD], self.first, resolver=never).problems

    def test_keeps_its_stack_when_the_tables_know_a_newer_client(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("plan.packages.modelscope", lambda: "9.9.9")
        assert locked(GPU_1, OLLAMA, OLD, old=self.first).lock == self.first

    def test_keeps_what_a_host_had_that_cannot_be_planned_now(self) -> None:
        broken = dataclasses.replace(OLD, problems=("its hub cannot be reached.",))
        made = locked(GPU_1, OLLAMA, broken, old=self.first)
        assert made.lock == self.first
        assert made.problems == ("old: its hub cannot be reached.",)

    def test_keeps_what_a_host_had_that_could_not_be_looked_at(self) -> None:
        hosts = [GPU_1, OLLAMA]
        assert lock_make.make(hosts, self.first, (), listed, tag, closure, complete=False).lock == self.first
        assert "old" not in lock_make.make(hosts, self.first, (), listed, tag, closure).lock.hosts

    def test_moves_one_package_when_told_to(self) -> None:
        made = locked(GPU_1, old=locked(GPU_1).lock, upgrades=("certifi==2026.11.1",))
        assert list(lock_diff.lines(locked(GPU_1).lock, made.lock)) == [
            "gpu-1:",
            "  package certifi 2026.10.18 becomes 2026.11.1",
        ]

    def test_adds_a_host_without_moving_the_others(self) -> None:
        made = locked(GPU_1, GPU_2, OLLAMA, OLD, old=self.first)
        assert list(lock_diff.lines(self.first, made.lock)) == ["gpu-2:", "  is new"]


class TestADeploy:
    held = locked(GPU_1, OLLAMA).lock

    def test_gets_the_closure_with_its_hashes(self) -> None:
        environment = applied(GPU_1, self.held).environment
        assert environment
        assert f"certifi==2026.10.18 --hash=sha256:{'a' * 64}\n" in environment.locked

    def test_stays_at_the_locked_vllm_when_the_tables_choose_a_newer_one(self) -> None:
        older = locked(Seen("gpu-1", locks.settings(vllm="0.10.2"), GPU)).lock
        environment = applied(GPU_1, older).environment
        assert environment
        assert environment.pins["vllm"] == {"vllm": "0.10.2"}

    def test_stays_at_the_locked_ollama(self) -> None:
        plan = applied(OLLAMA, self.held)
        assert plan.ollama and plan.ollama.archive
        assert f"{plan.ollama.archive.version} x86_64" == self.held.hosts["small"].ollama

    def test_is_refused_where_the_settings_ask_for_another_vllm(self) -> None:
        sentence = drift(GPU_1, self.held, **locks.settings(vllm="0.10.2"))
        assert "prod.lock has" in sentence
        assert "vllm 0.32.0 for it, and its plan has 0.10.2" in sentence
        assert sentence.endswith("or deploy with `--data relock=true`.")

    def test_is_refused_where_a_package_was_added(self) -> None:
        sentence = drift(GPU_1, self.held, environment={"packages": ["tabulate==0.9.0"]})
        assert "has no tabulate for it, and its plan has 0.9.0" in sentence

    def test_is_refused_on_a_host_that_the_lock_does_not_know(self) -> None:
        assert "does not know this host" in drift(GPU_2, self.held)

    def test_is_refused_on_another_system(self) -> None:
        older = dataclasses.replace(GPU_1, probe=GPU.replace("glibc 2.36", "glibc 2.39"))
        assert "wheels for x86_64-manylinux_2_36 for it, and its plan has x86_64-manylinux_2_39" in drift(
            older, self.held
        )


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    with wheel_index.served(tmp_path) as url:
        yield tmp_path, url


def releases_of(seen: Seen, vllm: str | None = None) -> dict[str, list[str]]:
    """What the plan of a host pins, as releases that require nothing."""
    wanted = locking.with_vllm(seen.settings(), vllm)
    environment = seen.plan(wanted).environment
    assert environment
    return {f"{name}=={pin}": [] for part in environment.pins.values() for name, pin in part.items()}


class TestUv:
    """With uv itself, against an index of wheels that hold nothing but their metadata."""

    def test_a_long_reason_is_cut_to_what_a_lock_takes(self) -> None:
        tried: list[str] = []

        def resolver(environment: EnvironmentPlan, *given: Any, **named: Any) -> uv.Closure:
            if not tried:
                tried.append("the newest")
                raise uv.UnresolvableError(["It is too new.", "Because of this and of that, " * 20])
            return closure(environment, *given, **named)

        made = lock_make.make([GPU_1], None, resolver=resolver)
        (stack,) = made.lock.stack.values()
        (why,) = stack.instead_of.values()
        assert why.startswith("It is too new. Because") and len(why) <= lock.WORD_SIGNS

    def test_the_next_vllm_is_taken_when_the_newest_needs_what_is_not_published(
        self, index: tuple[Path, str]
    ) -> None:
        folder, url = index
        seen = dataclasses.replace(GPU_1, data=ONE | {"sources": {"wheels": url}})
        newest, next_one = self._two_releases(seen)
        wheel_index.publish(folder, {"certifi==2026.10.18": []})
        wheel_index.publish(folder, releases_of(seen, next_one))
        # as vLLM 0.33.0 was published on 2026-11-02
        broken = {f"vllm=={newest}": ["certifi>=2026.10.19"]}
        wheel_index.publish(folder, releases_of(seen) | broken)
        made = lock_make.make([seen], None, model=listed)
        assert not made.problems
        (stack,) = made.lock.stack.values()
        assert stack.pins["vllm"]["vllm"] == next_one
        (note,) = made.notes
        assert note.startswith(f"vllm {next_one} instead of vllm {newest}, which cannot be resolved: ")
        assert "certifi>=2026.10.19" in note
        again = lock_make.make([seen], made.lock, model=listed)
        assert lock.render(again.lock, "prod.py") == lock.render(made.lock, "prod.py")
        environment = applied(seen, made.lock).environment
        assert environment and environment.pins["vllm"]["vllm"] == next_one

    def _two_releases(self, seen: Seen) -> tuple[str, str]:
        """The vLLM that is planned, and the newest before it that can be."""
        environment = seen.plan(seen.settings()).environment
        assert environment
        newest = environment.pins["vllm"]["vllm"]
        known = list(compat.vllms())
        for version in known[known.index(newest) + 1 :]:
            try:
                seen.plan(locking.with_vllm(seen.settings(), version))
            except PlanError:
                continue
            return newest, version
        raise AssertionError("no second release")

    def test_newer_releases_move_nothing_that_is_not_upgraded(self, index: tuple[Path, str]) -> None:
        folder, url = index
        seen = dataclasses.replace(GPU_1, data=ONE | {"sources": {"wheels": url}})
        pins = releases_of(seen)
        vllm = next(name for name in pins if name.startswith("vllm=="))
        wheel_index.publish(folder, pins | {vllm: ["certifi", "idna"], "certifi==1.0": [], "idna==1.0": []})
        first = lock_make.make([seen], None, model=listed).lock
        wheel_index.publish(folder, {"certifi==2.0": [], "idna==2.0": []})
        assert lock_make.make([seen], first, model=listed).lock == first
        moved = lock_make.make([seen], first, ("certifi",), listed).lock
        assert list(lock_diff.lines(first, moved)) == ["gpu-1:", "  package certifi 1.0 becomes 2.0"]
        more = dataclasses.replace(seen, data={**seen.data, "environment": {"packages": ["tabulate==0.9.0"]}})
        wheel_index.publish(folder, {"tabulate==0.9.0": []})
        assert list(lock_diff.lines(moved, lock_make.make([more], moved, model=listed).lock)) == [
            "gpu-1:",
            "  package tabulate 0.9.0 is added",
        ]

    def test_as_of_a_day_nothing_newer_counts_and_it_is_the_same_again(self, index: tuple[Path, str]) -> None:
        folder, url = index
        seen = dataclasses.replace(GPU_1, data=ONE | {"sources": {"wheels": url}})
        pins = releases_of(seen)
        vllm = next(name for name in pins if name.startswith("vllm=="))
        wheel_index.publish(folder, pins | {vllm: ["certifi"], "certifi==1.0": []}, "2026-04-30T23:59:59Z")
        wheel_index.publish(folder, {"certifi==2.0": []}, "2026-05-01T00:00:00Z")
        first = lock_make.make([seen], None, model=listed, as_of="2026-04-30").lock
        (stack,) = first.stack.values()
        assert (stack.versions["certifi"], stack.resolved) == ("1.0", "2026-04-30")
        wheel_index.publish(folder, {"certifi==1.1": []}, "2026-05-02T00:00:00Z")
        again = lock_make.make([seen], None, model=listed, as_of="2026-04-30").lock
        assert lock.render(again, "prod.py") == lock.render(first, "prod.py")
        # without a day the lock stays; another day makes it anew
        assert lock_make.make([seen], first, model=listed, today="2026-06-01").lock == first
        later = lock_make.make([seen], first, model=listed, as_of="2026-05-01").lock
        assert list(lock_diff.lines(first, later)) == ["gpu-1:", "  package certifi 1.0 becomes 2.0"]

    def test_as_of_a_day_long_gone_takes_its_vllm_with_the_client_of_today(
        self, index: tuple[Path, str]
    ) -> None:
        """The client that brings models came out later, in two parts; ten releases of vLLM did, too."""
        folder, url = index
        seen = dataclasses.replace(GPU_1, data=ONE | {"sources": {"wheels": url}})
        of_the_day = next(row for row in compat.vllms().values() if row.released <= "2026-03-31")
        pins = releases_of(seen, of_the_day.version)
        client = next(name for name in pins if name.startswith("modelscope=="))
        wheel_index.publish(folder, {name: [] for name in pins if name != client}, "2026-03-31T12:00:00Z")
        wheel_index.publish(folder, {client: ["modelscope-hub>=0.4.6"]}, "2026-10-09T00:00:00Z")
        wheel_index.publish(folder, {"modelscope-hub==0.5.1": []}, "2026-10-26T00:00:00Z")
        wheel_index.publish(folder, {"modelscope-hub==0.6.0": []}, "2026-12-24T00:00:00Z")
        made = lock_make.make([seen], None, model=listed, as_of="2026-03-31")
        assert not made.problems
        (stack,) = made.lock.stack.values()
        assert stack.versions["vllm"] == of_the_day.version
        # one of after its trial is none that was tried
        assert stack.versions["modelscope-hub"] == "0.5.1"

    def test_as_of_a_day_before_the_newest_vllm_the_one_before_is_taken(
        self, index: tuple[Path, str]
    ) -> None:
        folder, url = index
        seen = dataclasses.replace(GPU_1, data=ONE | {"sources": {"wheels": url}})
        newest, next_one = self._two_releases(seen)
        before, now = releases_of(seen, next_one), releases_of(seen)
        wheel_index.publish(folder, before, "2026-03-01T00:00:00Z")
        newer = {release: now[release] for release in now if release not in before}
        wheel_index.publish(folder, newer, "2026-11-02T00:00:00Z")
        made = lock_make.make([seen], None, model=listed, as_of="2026-10-10")
        assert not made.problems
        (note,) = made.notes
        assert note.startswith(f"vllm {next_one} instead of vllm {newest}, which cannot be resolved: ")
        assert " came on 2026-11-02, after 2026-10-10." in note

    def test_as_of_a_day_that_the_index_cannot_tell_is_refused(self, index: tuple[Path, str]) -> None:
        folder, url = index
        seen = dataclasses.replace(GPU_1, data=ONE | {"sources": {"wheels": url}})
        wheel_index.publish(folder, releases_of(seen))
        (problem,) = lock_make.make([seen], None, model=listed, as_of="2026-10-01").problems
        assert problem.startswith("gpu-1: lock: no closure within ")
        assert "The index does not say when" in problem


class TestTheCommand:
    @pytest.fixture
    def inventory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("plan.lock_make.make.__defaults__", ((), None, None, closure, True, None, None))
        folder = tmp_path / "probes"
        folder.mkdir()
        for seen in (GPU_1, OLLAMA):
            seen.save(folder)
        (tmp_path / "prod.py").write_text("prod = []\n")
        monkeypatch.setattr("plan.lock_models.listed", listed)
        monkeypatch.setattr("plan.ollama_registry.listed", tag)
        return tmp_path / "prod.py"

    def test_writes_the_lock_beside_the_inventory(
        self, inventory: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["lock", str(inventory), "--probes", str(inventory.parent / "probes")]
        assert main(words) == 0
        path = inventory.with_suffix(".lock")
        first = path.read_bytes()
        assert "prod.lock: written: 2 hosts, 1 stacks" in capsys.readouterr().out
        assert main(words) == 0
        assert "prod.lock: unchanged: 2 hosts" in capsys.readouterr().out
        assert path.read_bytes() == first
        assert main(["diff", str(path), str(path)]) == 0
        assert capsys.readouterr().out == "The same for every host.\n"

    def test_refuses_to_upgrade_what_is_not_there(
        self, inventory: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        probes = str(inventory.parent / "probes")
        assert main(["lock", str(inventory), "--probes", probes, "--upgrade", "nothing"]) == 2
        assert "the lock has no nothing" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--as-of", "2999-01-01"], "2999-01-01 is still to come"),
            (["--as-of", "yesterday"], "'yesterday' is no day"),
            (["--as-of", "2026-01-01", "--upgrade", "vllm"], "--as-of: renews every stack as of that day"),
        ],
    )
    def test_refuses_a_day_that_it_can_do_nothing_with(
        self, inventory: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
    ) -> None:
        try:
            code = main(["lock", str(inventory), "--probes", str(inventory.parent / "probes"), *words])
        except SystemExit as ended:
            code = int(str(ended.code))
        assert code == 2
        assert sentence in capsys.readouterr().err

    def test_saves_no_look_that_others_may_read(self, inventory: Path) -> None:
        (saved,) = (inventory.parent / "probes").glob("gpu-1.json")
        assert saved.stat().st_mode & 0o077 == 0
        assert json.loads(saved.read_text())["host"] == "gpu-1"
