"""A deploy beside a lock: it installs what the lock has, refuses to leave it, and then has nothing to do."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.inventory import Inventory

from ops import locks
from ops.stamp import settings_digest
from plan import lock, locking, model_facts, settings, stamp
from plan.decide import plan_host
from plan.drift import Seen as Looked
from plan.drift import differences
from plan.host import HostPlan
from plan.lock import Lock
from plan.probe import parse
from plan.seen import Seen
from tests.plan.locks import GPU, MODEL, ONE, locked
from tests.roles import commits
from tests.roles.fleet import Exec, FakeHost, Run, deploy
from tests.roles.served import served

SEEN = Seen("@fake/gpu", ONE, GPU)
HELD = locked(SEEN).lock
TEXT = lock.render(HELD, "fleet.py")
HOST = FakeHost("gpu", GPU, ONE)
MORE = {"environment": {"packages": ["tabulate==0.9.0"]}}


def applied(held: Lock) -> HostPlan:
    wanted = settings.read([ONE])
    bound = locking.held(wanted, SEEN.host, held)
    plan = plan_host(SEEN.host, bound, SEEN.parsed(), pins=commits.pins(bound))
    return locking.apply(plan, wanted, SEEN.parsed(), held, "fleet.lock")


@pytest.fixture(scope="module")
def first() -> Run:
    return deploy(HOST, lock=TEXT)


def commands(run: Run, task: str) -> list[str]:
    return [trip.command for trip in run.execs["gpu"] if f"--unit=bringup-{task}.service" in trip.command]


def test_the_closure_is_written_and_not_resolved_again(first: Run) -> None:
    assert first.code == 0, first.output
    assert "start resolve" not in first.kinds("gpu")
    environment = applied(HELD).environment
    assert environment
    assert first.files("gpu")[environment.lock_file] == environment.locked


@pytest.mark.parametrize("task", ["install-models", "install-torch", "install-vllm", "lock"])
def test_nothing_is_installed_without_its_hash(first: Run, task: str) -> None:
    (command,) = commands(first, task)
    assert "--require-hashes" in command


def test_a_second_run_is_one_round_trip(first: Run) -> None:
    there = served(GPU, list(first.execs["gpu"]), applied(HELD))
    assert deploy(dataclasses.replace(HOST, probe=there), lock=TEXT).kinds("gpu") == ["probe"]


def on_a_served_host(first: Run, held: Lock, **distributions: str) -> Run:
    """A run over the host of the first run, which has other distributions than it was given."""
    there = served(GPU, list[Exec](first.execs["gpu"]), applied(HELD))
    lines = "".join(f"dist {name}-{version}.dist-info\n" for name, version in distributions.items())
    there = there.replace("dist certifi-2026.10.18.dist-info\n", lines)
    return deploy(dataclasses.replace(HOST, probe=there), lock=lock.render(held, "fleet.py"))


def with_commit(held: Lock) -> Lock:
    """The lock with the model at the commit that the stand-in hub names."""
    (name,) = held.model
    models = {name: held.model[name].model_copy(update={"commit": commits.commit_of(MODEL)})}
    return held.model_copy(update={"model": models})


def test_a_download_is_told_the_bytes_of_the_lock() -> None:
    run = deploy(HOST, lock=lock.render(with_commit(HELD), "fleet.py"))
    told = f'"locked": {{"config.json": "{"b" * 64}"}}'
    assert any("/fetch.py" in trip.command and told in trip.command for trip in run.execs["gpu"])


def test_other_bytes_of_a_model_than_the_lock_has_are_drift(first: Run) -> None:
    there = served(GPU, list[Exec](first.execs["gpu"]), applied(HELD))
    there = there.replace("model.safetensors", "config.json")
    run = deploy(dataclasses.replace(HOST, probe=there), lock=lock.render(with_commit(HELD), "fleet.py"))
    assert run.kinds("gpu") == ["probe"]
    assert f"fleet.lock has other bytes of config.json of {MODEL} than this host has. Run" in run.output


def test_a_package_of_another_version_is_put_right(first: Run) -> None:
    run = on_a_served_host(first, HELD, certifi="2020.1.1")
    assert run.kinds("gpu") == ["probe", "start lock", "join lock"]
    (command,) = commands(run, "lock")
    assert "--all-extras" in command
    assert "uninstall" not in command


def test_a_package_too_many_is_removed(first: Run) -> None:
    run = on_a_served_host(first, HELD, certifi="2026.10.18", leftover="1.0")
    assert run.kinds("gpu") == ["probe", "start lock", "join lock"]
    (command,) = commands(run, "lock")
    assert "uv pip uninstall --python /opt/bringup/conda/envs/serve/bin/python leftover" in command


def test_a_package_that_was_upgraded_in_the_lock_is_moved_on_the_host(first: Run) -> None:
    moved = locked(SEEN, old=HELD, upgrades=("certifi==2026.11.1",)).lock
    run = on_a_served_host(first, moved, certifi="2026.10.18")
    kinds = run.kinds("gpu")
    assert "start lock" in kinds
    assert "start install-torch" not in kinds
    assert "service restart" in kinds


def test_a_host_that_drifts_is_refused_alone_and_before_anything_is_changed() -> None:
    known = FakeHost("gpu", GPU, ONE | MORE)
    other = FakeHost("other", GPU, ONE)
    run = deploy(known, other, lock=lock.render(locked(SEEN, named("@fake/other")).lock, "fleet.py"))
    assert run.kinds("gpu") == ["probe"]
    assert "fleet.lock has no tabulate for it, and its plan has 0.9.0. Run" in " ".join(run.output.split())
    assert "start lock" in run.kinds("other")
    assert run.code == 1


def named(host: str) -> Seen:
    return dataclasses.replace(SEEN, host=host)


def test_relock_lets_a_host_drift_and_resolve_for_itself() -> None:
    run = deploy(FakeHost("gpu", GPU, ONE | MORE), lock=TEXT, options=("-y", "--data", "relock=true"))
    assert run.code == 0, run.output
    assert "start resolve" in run.kinds("gpu")


def test_relock_moves_no_model_of_a_host_that_does_not_drift() -> None:
    pinned = {name: model.model_copy(update={"commit": "b" * 40}) for name, model in HELD.model.items()}
    held = lock.render(HELD.model_copy(update={"model": pinned}), "fleet.py")
    run = deploy(HOST, lock=held, options=("-y", "--data", "relock=true"))
    assert run.code == 0, run.output
    (started,) = [trip.command for trip in run.execs["gpu"] if "--unit=bringup-model-" in trip.command]
    assert f'"commit": "{"b" * 40}"' in started
    assert commits.commit_of(MODEL) not in started


class TestALaterLook:
    """What the checks of a fleet say of a host that was deployed beside a lock."""

    def said(self, folder: Path, data: dict[str, Any], run: Run, plan: HostPlan, held: Lock) -> list[str]:
        """The sentences for the host of this run, which was deployed by this plan."""
        there = parse(served(GPU, list[Exec](run.execs["gpu"]), plan))
        # each look at a folder of its own: a lock is read once
        inventory = Path(tempfile.mkdtemp(dir=folder)) / "fleet.py"
        inventory.touch()
        inventory.with_suffix(".lock").write_text(lock.render(held, "fleet.py"))
        (host,) = Inventory(([("@fake/gpu", data)], {}))  # type: ignore[no-untyped-call]
        wanted = settings.read([data, {"sources": {"models": commits.url()}}])
        locks.use_beside(str(inventory))
        try:
            looked, apart = locks.seen_apart(host, wanted, there, model_facts.kept(there))
            digest = locks.digest(host.name)
        finally:
            locks.use_beside(None)
        text = run.files("gpu")[stamp.FILE]
        deployed = stamp.parse(text)
        assert deployed
        seen = Looked(text, hashes={})
        found = differences(looked, there, seen, settings_digest(wanted), deployed.version, digest)
        # what the probe of this test does not know: files, and where a model came from
        known = [one for one in found if not one.about.startswith("/") and ".endpoint" not in one.about]
        about = [one.sentence for one in known]
        return [*([apart] if apart else []), *about]

    def test_finds_nothing_where_the_lock_is_as_it_was(self, first: Run, tmp_path: Path) -> None:
        assert self.said(tmp_path, ONE, first, applied(HELD), HELD) == []

    def test_names_the_lock_where_that_has_moved(self, first: Run, tmp_path: Path) -> None:
        moved = locked(SEEN, old=HELD, upgrades=("certifi==2026.11.1",)).lock
        sentences = self.said(tmp_path, ONE, first, applied(HELD), moved)
        assert [
            one for one in sentences if one.startswith("environment.locked: ") and "the lock now gives" in one
        ]

    def test_says_that_a_relocked_host_stands_apart_and_nothing_else(self, tmp_path: Path) -> None:
        data = ONE | MORE
        run = deploy(FakeHost("gpu", GPU, data), lock=TEXT, options=("-y", "--data", "relock=true"))
        wanted = settings.read([data, {"sources": {"models": commits.url()}}])
        own = plan_host("@fake/gpu", wanted, SEEN.parsed(), pins=commits.pins(wanted))
        (sentence,) = self.said(tmp_path, data, run, own, HELD)
        assert sentence.startswith("lock: fleet.lock has no tabulate for it, and its plan has 0.9.0. Run")
        # a lock that was made anew takes it up again
        renewed = locked(dataclasses.replace(SEEN, data=data), old=HELD).lock
        assert "the lock now gives" in " ".join(self.said(tmp_path, data, run, own, renewed))


def test_a_lock_that_is_damaged_is_left_by_nobody() -> None:
    run = deploy(HOST, lock="format = 9\n")
    assert run.kinds("gpu") == ["probe"]
    assert "refused: @fake/gpu: lock: fleet.lock: " in run.output
