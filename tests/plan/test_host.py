"""A plan names files and units so that other content has another name, and holds no secret."""

import dataclasses
import json
from pathlib import Path

import pytest

from plan import secrets, settings
from plan.decide import plan_host
from plan.host import EnvironmentPlan
from plan.model_plan import ModelPlan
from plan.probe import parse
from plan.probe_models import InstalledModel
from tests import probes

BARE = parse(probes.answer(probes.BARE))
ONE = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}
KEY = "a-key-that-nobody-may-see-0123"


@pytest.fixture(scope="module")
def environment() -> EnvironmentPlan:
    planned = plan_host("gpu-1", settings.read([ONE]), BARE).environment
    assert planned
    return planned


class TestTheEnvironmentsDigest:
    def test_is_the_same_for_the_same_plan(self, environment: EnvironmentPlan) -> None:
        again = plan_host("gpu-2", settings.read([ONE]), BARE).environment
        assert again and again.digest == environment.digest

    def test_changes_with_a_pin_a_conda_package_and_uv(self, environment: EnvironmentPlan) -> None:
        pins = {part: dict(versions) for part, versions in environment.pins.items()}
        pins["torch"]["torch"] = "0.0.1"
        others = [
            dataclasses.replace(environment, pins=pins),
            dataclasses.replace(environment, records=environment.records | {"extra-1-0"}),
            dataclasses.replace(environment, uv=dataclasses.replace(environment.uv, version="0.0.1")),
        ]
        assert len({environment.digest, *(other.digest for other in others)}) == 4

    def test_does_not_change_with_where_things_come_from(self, environment: EnvironmentPlan) -> None:
        moved = dataclasses.replace(environment, installer_urls=("https://elsewhere.example/x.sh",))
        assert moved.digest == environment.digest

    def test_names_the_lock_and_the_torch_check(self, environment: EnvironmentPlan) -> None:
        assert environment.digest in environment.lock_file
        assert environment.digest in environment.checked_file


class TestAModel:
    model = ModelPlan("Qwen/Qwen2.5_VL", "feature/a", "https://hub.example")

    def test_has_one_directory_for_a_revision_with_slashes(self) -> None:
        assert self.model.directory == "/srv/models/Qwen/Qwen2.5_VL/feature--a"

    def test_has_a_slug_that_systemd_does_not_escape_and_that_tells_revisions_apart(self) -> None:
        assert self.model.slug.startswith("qwen2.5-vl-")
        other = dataclasses.replace(self.model, revision="master")
        assert other.slug != self.model.slug

    def test_has_a_slug_of_its_own_beside_its_namesake(self) -> None:
        names = {ModelPlan(name, "master", "").slug for name in ("a/Model", "b/Model", "a/model", "a/mo_del")}
        assert len(names) == 4

    def test_is_there_only_when_it_is_whole(self) -> None:
        manifest = {
            "model": self.model.model,
            "revision": self.model.revision,
            "files": {"w": {"size": 1, "mtime_ns": 2}},
        }
        whole = InstalledModel(manifest, {"w": (1, 2)})
        cut = InstalledModel(manifest, {"w": (0, 2)})
        seen = dataclasses.replace(BARE, models={self.model.directory: whole})
        assert self.model.there(seen)
        assert not self.model.there(dataclasses.replace(BARE, models={self.model.directory: cut}))
        assert not self.model.there(BARE)


def test_a_plan_is_json_and_the_same_one_every_time(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    wanted = settings.read([ONE, {"access": {"listen": "10.44.0.0/24", "api_key_file": str(key)}}])
    assert secrets.api_key(wanted.access) == KEY
    first, second = (plan_host("gpu-1", wanted, BARE) for _ in range(2))
    assert first.to_json() == second.to_json()
    assert json.loads(first.to_json())["services"][0]["port"] == 8000
    assert KEY not in first.to_json() + repr(first) + repr(wanted)
