"""Models are pinned to commits; old ones stay as long as the settings say, and a served one always."""

import dataclasses
from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.exchange import exchange
from plan.host import HostPlan
from plan.model_plan import ModelPlan
from plan.models_host import Pin, installed_pin, pins_text, recorded_pins
from plan.probe import Probe, parse
from plan.probe_models import InstalledModel
from tests import probes

BARE = parse(probes.answer(probes.BARE))
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
SERVED = {"serve": {"chat": {"model": MODEL}}}
OLD, OLDER, NEW = ("a" * 40, "b" * 40, "c" * 40)
FILES = {"w": {"size": 1, "mtime_ns": 2, "sha256": "0" * 64}}


def installed(commit: str, published: str, **other: Any) -> InstalledModel:
    manifest = {
        "model": MODEL,
        "revision": "master",
        "commit": commit,
        "published": published,
        "files": FILES,
    }
    return InstalledModel(manifest | {"include": [], "exclude": []} | other, {"w": (1, 2)})


def having(**commits: InstalledModel) -> Probe:
    models = {f"/srv/models/{MODEL}/{there.manifest['commit']}": there for there in commits.values()}
    return dataclasses.replace(BARE, models=models)


HAS = having(old=installed(OLD, "2026-02-01"), older=installed(OLDER, "2026-01-01"))


def planned(probe: Probe, commit: str, *layers: Any, host: str = "gpu-1") -> HostPlan:
    return plan_host(
        host,
        settings.read([SERVED, *layers]),
        probe,
        pins={(MODEL, "master"): Pin(commit, "https://x.example")},
    )


def test_a_service_runs_on_the_directory_of_a_commit() -> None:
    (service,) = planned(BARE, NEW).services
    assert service.model.directory == f"/srv/models/{MODEL}/{NEW}"
    assert service.model.staging.startswith(f"/srv/models/{MODEL}/.")


def test_a_branch_that_moved_is_another_model_to_fetch_and_the_same_one_is_not() -> None:
    assert planned(HAS, OLD).models[0].there(HAS)
    assert not planned(HAS, NEW).models[0].there(HAS)


def test_a_model_with_other_files_wanted_is_not_there() -> None:
    other = {"models": {MODEL: {"exclude": ["*.pth"]}}}
    assert not planned(HAS, OLD, other).models[0].there(HAS)
    assert planned(having(x=installed(OLD, "", exclude=["*.pth"])), OLD, other).models[0].exclude == (
        "*.pth",
    )


@pytest.mark.parametrize(
    ("commit", "keep", "removed"),
    [(NEW, 1, [OLDER]), (NEW, 0, [OLD, OLDER]), (NEW, 2, []), (OLD, 0, [OLDER]), (OLD, 1, [])],
)
def test_the_newest_of_the_earlier_commits_are_kept(commit: str, keep: int, removed: list[str]) -> None:
    plan = planned(HAS, commit, {"models": {"keep": keep}})
    assert plan.removed_models == tuple(f"/srv/models/{MODEL}/{each}" for each in removed)


def test_a_model_that_is_absent_goes_as_it_is_whole_or_cut() -> None:
    absent = {"models": {MODEL: {"state": "absent"}}}
    parent = f"/srv/models/{MODEL}"
    cut = ModelPlan(MODEL, "v1", "").staging
    begun = dataclasses.replace(BARE, model_parts={cut: 1.0})

    def removed(probe: Probe, *layers: Any) -> tuple[str, ...]:
        wish = settings.read([*layers])
        pins = {(MODEL, revision): Pin(NEW, "https://x.example") for revision in ("v1", "v2")}
        return plan_host("gpu-1", wish, probe, pins=pins).removed_models

    assert removed(begun, absent) == (parent,)
    assert removed(begun, absent, {"models": {MODEL: {"revision": "v1"}}}) == (parent,)
    assert removed(begun, absent, {"models": {MODEL: {"revision": "v2"}}}) == ()
    # the commit that is served comes in this run, into the same directory
    served = {"serve": {"chat": {"model": MODEL, "revision": "v2"}}}
    assert removed(HAS, absent, served) == (f"{parent}/{OLD}", f"{parent}/{OLDER}")
    assert removed(begun, absent, served) == (cut,)
    assert removed(begun, absent, {"serve": {"chat": {"model": MODEL, "revision": "v1"}}}) == ()


def test_when_nobody_answers_the_newest_whole_commit_of_the_revision_is_kept() -> None:
    assert installed_pin(MODEL, "master", HAS) == Pin(OLD, "")
    cut = dataclasses.replace(installed(OLD, "2026-02-01"), files={"w": (0, 2)})
    assert installed_pin(MODEL, "master", having(cut=cut, older=installed(OLDER, ""))) == Pin(OLDER, "")
    assert installed_pin(MODEL, "v2", HAS) is None
    assert installed_pin("a/b", "master", HAS) is None


@pytest.mark.parametrize(("revision", "commit"), [("v2", OLD), ("master", OLDER)], ids=["renamed", "back"])
def test_a_revision_is_the_commit_that_was_deployed_whatever_the_manifests_say(
    revision: str, commit: str
) -> None:
    model = ModelPlan(MODEL, revision, "https://x.example", commit=commit)
    deployed = dataclasses.replace(HAS, model_pins=pins_text([model]))
    wish = settings.read([{"serve": {"chat": {"model": MODEL, "revision": revision}}}])
    pin = Pin(commit, "https://x.example")
    assert recorded_pins(wish, deployed) == {(MODEL, revision): pin}
    assert installed_pin(MODEL, revision, deployed) == pin
    gone = dataclasses.replace(deployed, model_pins="[[1]]")
    assert recorded_pins(wish, gone).get((MODEL, revision)) != pin


def on(address: str, probe: Probe = BARE) -> Probe:
    return dataclasses.replace(probe, networks=(address,))


def fleet(*probes_: Probe, **section: Any) -> list[tuple[HostPlan, Probe]]:
    return [
        (planned(probe, OLD, {"models": section}, host=f"gpu-{number}"), probe)
        for number, probe in enumerate(probes_, 1)
    ]


class TestAnExchange:
    lan = ("10.1.0.1/24", "10.1.0.2/24", "10.1.0.3/24")

    def test_has_seeds_peers_and_the_same_port_on_every_host(self) -> None:
        hosts = fleet(*map(on, self.lan), seeds=2)
        model = hosts[0][0].models[0]
        parts = [exchange(plan.host, model, hosts) for plan, _ in hosts]
        assert all(parts)
        assert [part.me for part in parts if part] == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]
        assert {(part.seeds, part.port) for part in parts if part} == {
            (("10.1.0.1", "10.1.0.2"), parts[0].port if parts[0] else 0)
        }

    def test_leaves_out_who_has_the_model_already_but_lets_it_in(self) -> None:
        hosts = fleet(on(self.lan[0], HAS), *map(on, self.lan[1:]))
        model = hosts[0][0].models[0]
        assert exchange("gpu-1", model, hosts) is None
        part = exchange("gpu-2", model, hosts)
        assert part and part.seeds == ("10.1.0.2",) and part.expected == ("10.1.0.2", "10.1.0.3")
        assert part.peers == ("10.1.0.1", "10.1.0.2", "10.1.0.3")

    @pytest.mark.parametrize(
        ("addresses", "section"),
        [
            (("10.1.0.1/24", "10.2.0.1/24"), {}),
            (("10.1.0.1/24", "10.1.0.1/24"), {}),
            (("8.8.8.8/24", "8.8.8.9/24"), {}),
            (("10.1.0.1/24",), {}),
            (("10.1.0.1/24", "10.1.0.2/24"), {"seeds": 0}),
            (("10.1.0.1/24", "10.1.0.2/24"), {"network": "10.9.0.0/16"}),
        ],
    )
    def test_is_not_without_a_second_host_on_a_lan(self, addresses: tuple[str, ...], section: Any) -> None:
        hosts = fleet(*map(on, addresses), **section)
        assert exchange("gpu-1", hosts[0][0].models[0], hosts) is None

    def test_crosses_subnets_when_the_settings_name_their_network(self) -> None:
        hosts = fleet(on("10.1.0.1/24"), on("10.1.1.1/24"), network="10.1.0.0/16")
        part = exchange("gpu-2", hosts[0][0].models[0], hosts)
        assert part and part.peers == ("10.1.0.1", "10.1.1.1")
