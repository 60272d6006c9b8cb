"""Ollama over time: models of a Modelfile, another store, another version, a proxy."""

import re
import shlex
from pathlib import Path
from typing import Any, ClassVar

import pytest

from plan.errors import PlanError, SettingsError
from plan.host import CreatedPlan
from plan.probe import parse
from tests import probes
from tests.roles.fleet import Answer, FakeHost, Run, deploy
from tests.roles.ollama_hosts import (
    BARE,
    PRUNE,
    STORE,
    TAG,
    blobs,
    manifest,
    planned,
    pulled,
    refusals,
    removed,
    small,
    unit_of,
    with_ollama,
)
from tests.roles.systemd_words import settings as unit_settings

STORED = "registry.ollama.ai/library/qwen2.5/0.5b"


def test_a_proxy_is_told_by_the_one_variable_that_ollama_reads() -> None:
    run = deploy(FakeHost("small", BARE, small() | {"ollama": {"https_proxy": "http://proxy.intranet:3128"}}))
    starts = [trip.command for trip in run.execs["small"] if "--unit=bringup-ollama" in trip.command]
    assert [command.count("PROXY=http://proxy.intranet:3128") for command in starts] == [1, 1]
    assert all("--setenv=HTTPS_PROXY=" in command for command in starts)
    (sentence,) = refusals(small(), {"ollama": {"https_proxy": "http://me:secret@proxy:3128"}})
    assert sentence.startswith("ollama.https_proxy: ")


class TestAnUpgrade:
    """A host that serves by an older version, which is in the probe beside the running unit."""

    unit = ("Id=ollama-small.service", "ActiveState=active", "UnitFileState=enabled", "NeedDaemonReload=no")
    stored = (manifest("registry.ollama.ai/library/qwen2.5/0.5b", 1, 2), *blobs(1, 2))
    text = probes.with_block(with_ollama("version 0.13.3", *stored), "units", *unit)

    def test_restarts_the_service_and_then_removes_the_old_libraries(self) -> None:
        run = deploy(FakeHost("small", self.text, small()))
        assert run.code == 0, run.output
        kinds = run.kinds("small")
        order = ["start ollama", "service restart", "remove /opt/bringup/ollama/0.13.3/bin"]
        assert [kind for kind in kinds if kind in order] == order
        # the program first: with it alone a version whose removal was cut would count as whole
        assert any(
            trip.command.endswith("/opt/bringup/ollama/0.13.3/bin /opt/bringup/ollama/0.13.3")
            for trip in run.execs["small"]
        )

    def test_that_does_not_serve_puts_the_old_unit_back_and_keeps_its_libraries(self) -> None:
        fails = Answer("-p ActiveState", "failed 0 none")
        puts_back = Answer("echo restored", "restored")
        run = deploy(FakeHost("small", self.text, small(), [puts_back, fails]))
        assert run.code == 1
        (unit,) = [
            trip
            for trip in run.execs["small"]
            if "/etc/systemd/system/ollama-small" in trip.command and trip.files()
        ]
        assert "/etc/bringup/previous/ollama-small.service" in unit.command
        assert "the old one is put back" in run.output
        assert not [kind for kind in run.kinds("small") if kind.startswith("remove")]


class TestAPrunedStore:
    """A host that serves a model which no setting names any more."""

    there = with_ollama("version 0.40.2", manifest(STORED, 1, 2), *blobs(1, 2, 4))
    text = probes.with_block(there, "units", *TestAnUpgrade.unit)
    asked: ClassVar = small(model="qwen2.5:1.5b") | PRUNE

    def scripts(self, run: Run) -> list[str]:
        starts = [trip for trip in run.execs["small"] if "--unit=bringup-ollama-models" in trip.command]
        return [trip.script() for trip in starts]

    def test_keeps_what_is_served_until_the_new_model_has_answered(self) -> None:
        run = deploy(FakeHost("small", self.text, self.asked))
        assert run.code == 0, run.output
        order = ["start ollama-models", "service restart", "start ollama-models"]
        assert [kind for kind in run.kinds("small") if kind in order] == order
        pull, remove = (shlex.split(script.splitlines()[-1]) for script in self.scripts(run))
        assert pull[4:] == ["pull", "qwen2.5:1.5b", "registry.ollama.ai/library/qwen2.5/1.5b", "any"]
        assert remove[4:] == ["remove", "registry.ollama.ai/library/qwen2.5:0.5b"]

    def test_keeps_the_models_beside_a_unit_that_is_in_no_setting(self) -> None:
        unit = "\n".join(["Id=ollama-other.service", "ActiveState=active", ""])
        plan = planned(self.asked, probe=probes.with_block(self.there, "units", unit)).ollama
        assert plan and plan.removed_tags == ()

    def test_loses_files_of_no_model_after_the_services_too(self) -> None:
        run = deploy(FakeHost("small", self.text, small() | PRUNE))
        assert run.code == 0, run.output
        order = ["service restart", "start ollama-models"]
        assert [kind for kind in run.kinds("small") if kind in order] == order
        (script,) = self.scripts(run)
        assert script.startswith(f"rm -f -- {STORE}/blobs/sha256-{4:064x}\n")


class TestAStoreOnAnotherDisk:
    asked: ClassVar = {"ollama": {"store": "/data/ollama"}}
    filled = (
        "store /srv/models/ollama",
        manifest("registry.ollama.ai/library/qwen2.5/0.5b", 1, 2**30),
        *blobs(1, 2**30),
    )

    def test_is_what_the_server_reads_and_waits_for(self) -> None:
        plan = planned(small(), self.asked)
        values = [(name, value) for _, name, value in unit_settings(unit_of(plan))]
        assert ("RequiresMountsFor", "/data/ollama") in values
        assert ("Environment", "OLLAMA_MODELS=/data/ollama") in values

    def test_gets_the_models_and_the_old_place_is_cleared_after_the_restart(self) -> None:
        run = deploy(FakeHost("small", with_ollama("version 0.40.2", *self.filled), small() | self.asked))
        assert run.code == 0, run.output
        kinds = run.kinds("small")
        order = ["start ollama-store", "service restart", f"remove {STORE}"]
        assert [kind for kind in kinds if kind in order] == order
        assert "start ollama-models" not in kinds

    def test_is_moved_once(self) -> None:
        there = with_ollama("store /data/ollama", *self.filled[1:])
        run = deploy(FakeHost("small", there, small() | self.asked))
        assert "start ollama-store" not in run.kinds("small")
        left = with_ollama("store /data/ollama", f"old_store {STORE}", *self.filled[1:])
        plan = planned(small(), self.asked, probe=left)
        assert plan.ollama and plan.ollama.removed_paths == (STORE,)

    @pytest.mark.parametrize(
        ("mounts", "short"),
        [
            (["/ 9999999", "/data 100000"], True),  # KiB
            (["/ 100000", "/data 9999999"], False),
            (["/ 100000"], False),  # the same file system: links take no room
            (["/ 9999999", "/data -"], False),
        ],
    )
    def test_needs_room_on_its_own_disk(self, mounts: list[str], short: bool) -> None:
        probe = with_ollama(*self.filled).replace("@@ollama", "\n".join(["@@mounts", *mounts, "@@ollama"]))
        if short:
            with pytest.raises(PlanError, match=r"ollama.store: /data/ollama has 0.1 GiB free, .* need 1\."):
                planned(small(), self.asked, probe=probe)
        else:
            assert planned(small(), self.asked, probe=probe)

    @pytest.mark.parametrize(
        "store",
        ["/ollama", "data/ollama", "/data/../etc", "/data/$(id)", "/home/a/b", "/tmp/x", "/srv/models/x"],
    )
    def test_is_refused_where_services_cannot_read_or_others_live(self, store: str) -> None:
        (sentence,) = refusals(small(), {"ollama": {"store": store}})
        assert sentence.startswith("ollama.store: ")


@pytest.mark.parametrize(("occupied", "short"), [(40, False), (2, True)])
def test_a_pull_that_was_cut_needs_room_for_the_rest_alone(occupied: int, short: bool) -> None:
    partial = f"blob {47 * 10**9} sha256-{1:064x}-partial {occupied * 2**21}"
    mounts = ["@@mounts", f"/ {10 * 2**20}", "@@ollama"]
    probe = with_ollama(partial).replace("@@ollama", "\n".join(mounts))
    asked = small(model="qwen2.5:72b")
    memory = re.sub(r"MemTotal: .*", "MemTotal: 134217728 kB", probe)
    if short:
        with pytest.raises(PlanError, match=r"has 10.0 GiB free, the models need 42\."):
            planned(asked, probe=memory)
    else:
        assert planned(asked, probe=memory)


def test_a_model_that_is_pulled_anew_needs_no_room_for_the_files_that_are_there() -> None:
    lines = [manifest(STORED, 1, 2), *blobs(1, 2), f"created {TAG} {'0' * 12}"]
    probe = with_ollama(*lines).replace("@@ollama", "@@mounts\n/ 100000\n@@ollama")
    assert planned(small(), probe=probe)


class TestAModelOfAModelfile:
    @pytest.fixture
    def asked(self, tmp_path: Path) -> dict[str, Any]:
        (tmp_path / "desk").write_text(f"FROM {TAG}\nSYSTEM Answer in one sentence.\n")
        return small(model="desk", ollama={"modelfile": str(tmp_path / "desk")})

    def test_is_created_after_its_base_was_pulled(self, asked: dict[str, Any]) -> None:
        run = deploy(FakeHost("small", BARE, asked))
        assert run.code == 0, run.output
        file = "/etc/bringup/modelfiles/registry.ollama.ai--library--desk--latest"
        assert run.files("small")[file].startswith(f"FROM {TAG}\n")
        (model,) = (tag for tag in planned(asked).ollama.tags if tag.model == "desk")  # type: ignore[union-attr]
        assert isinstance(model, CreatedPlan)
        words = ["pull", TAG, "registry.ollama.ai/library/qwen2.5/0.5b", "any"]
        assert pulled(run)[-8:] == [*words, "create", "desk", file, model.digest]

    def test_cannot_have_the_name_of_its_base(self, asked: dict[str, Any]) -> None:
        asked["serve"]["small"]["model"] = f"library/{TAG}"
        with pytest.raises(SettingsError) as refused:
            planned(asked)
        assert refused.value.sentences == [
            f"serve.small.model: its Modelfile is made FROM {TAG} itself. Give the model a name of its own."
        ]

    @pytest.mark.parametrize("other", ["tag", "service", "base", "other Modelfile"])
    def test_cannot_have_the_name_of_another_model(
        self, asked: dict[str, Any], other: str, tmp_path: Path
    ) -> None:
        (tmp_path / "other").write_text("FROM desk\n" if other == "base" else f"FROM {TAG}\n")
        made = {"engine": "ollama", "ollama": {"modelfile": str(tmp_path / "other")}}
        others: dict[str, dict[str, Any]] = {
            "tag": {"ollama": {"models": ["desk:latest"]}},
            "service": {"serve": {"b": {"engine": "ollama", "model": "desk"}}},
            "base": {"serve": {"b": made | {"model": "clerk"}}},
            "other Modelfile": {"serve": {"b": made | {"model": "desk"}}},
        }
        with pytest.raises(SettingsError, match="and something else is asked for by that name"):
            planned(asked, others[other])
        asked["serve"]["again"] = dict(asked["serve"]["small"])
        assert planned(asked).ollama

    def test_is_there_only_when_made_from_this_very_file(self, asked: dict[str, Any]) -> None:
        (service,) = planned(asked).services
        assert isinstance(service.model, CreatedPlan)
        stored = manifest("registry.ollama.ai/library/desk/latest", 1, 2)
        for digest, there in ((service.model.digest, True), ("0" * 12, False)):
            seen = parse(with_ollama(stored, *blobs(1, 2), f"created desk {digest}"))
            assert service.model.there(seen) is there
        assert not service.model.there(parse(with_ollama(stored, *blobs(1, 2))))

    def test_is_pulled_when_its_modelfile_is_taken_away(self) -> None:
        stored = with_ollama(manifest(STORED, 1, 2), *blobs(1, 2), f"created library/{TAG} {'0' * 12}")
        run = deploy(FakeHost("small", stored, small()))
        assert pulled(run)[4:] == ["pull", TAG, STORED, "any", "forget", f"library/{TAG}"]

    def test_counts_in_memory_as_its_base(self, asked: dict[str, Any]) -> None:
        assert not any("not in the tables" in warning for warning in planned(asked).warnings)

    def test_keeps_its_base_when_models_are_pruned(self, asked: dict[str, Any]) -> None:
        there = with_ollama(manifest(STORED, 1, 2), *blobs(1, 2))
        plan = planned(asked, PRUNE, probe=there).ollama
        assert plan and plan.removed_tags == ()

    def test_leaves_no_modelfile_behind(self, asked: dict[str, Any]) -> None:
        file = "/etc/bringup/modelfiles/registry.ollama.ai--library--desk--latest"
        there = probes.with_block(BARE, "paths", f"640 root:bringup f {file}")
        assert removed(there) == (file,)
        assert removed(there, asked) == ()

    def test_may_be_made_from_a_file_of_a_planned_download_alone(self, tmp_path: Path) -> None:
        (tmp_path / "desk").write_text("FROM /srv/models/Qwen/Some-GGUF/master/some.gguf\n")
        asked = small(model="desk", ollama={"modelfile": str(tmp_path / "desk")})
        with pytest.raises(PlanError) as refused:
            planned(asked)
        assert refused.value.sentences == [
            "serve.small.ollama.modelfile: /srv/models/Qwen/Some-GGUF/master/some.gguf is of no entry of "
            "`models`. Add 'Qwen/Some-GGUF' to them."
        ]
        plan = planned(asked, {"models": {"Qwen/Some-GGUF": {}}})
        assert plan.ollama and [tag.model for tag in plan.ollama.tags] == ["desk"]

    def test_is_made_anew_when_the_commit_of_its_file_moves(self, tmp_path: Path) -> None:
        digests = set()
        for revision, commit in (("current", "1"), ("current", "2"), ("1" * 40, "1"), ("1" * 40, "2")):
            (tmp_path / "desk").write_text(f"FROM /srv/models/Qwen/Some-GGUF/{revision}/some.gguf\n")
            asked = small(model="desk", ollama={"modelfile": str(tmp_path / "desk")})
            plan = planned(asked, {"models": {"Qwen/Some-GGUF": {"revision": commit * 40}}})
            (model,) = plan.ollama.tags  # type: ignore[union-attr]
            assert isinstance(model, CreatedPlan)
            digests.add((revision, model.digest))
        assert [revision for revision, _ in sorted(digests)] == ["1" * 40, "current", "current"]
