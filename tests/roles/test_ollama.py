"""Ollama from the settings to what a host is sent: names, archives, refusals, tasks, the unit."""

import hashlib
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plan import archives, hardening, settings, show, stamp
from plan.errors import SettingsError
from plan.host import TagPlan
from plan.probe import Probe, parse
from plan.probe_ollama import whole_name
from plan.sections import Sources
from roles.ollama import deploy as role
from tests import probes
from tests.roles.fleet import FakeHost, deploy
from tests.roles.ollama_hosts import (
    BARE,
    PRUNE,
    QUANTIZED,
    SHA256,
    STORE,
    TAG,
    blobs,
    manifest,
    planned,
    pull_command,
    pulled,
    refusals,
    removed,
    small,
    unit_of,
    with_ollama,
)
from tests.roles.security import exposure
from tests.roles.served import stamped
from tests.roles.systemd_words import settings as unit_settings
from tests.roles.systemd_words import words


class TestNames:
    @pytest.mark.parametrize(
        ("name", "whole"),
        [
            ("qwen2.5", "registry.ollama.ai/library/qwen2.5/latest"),
            (TAG, "registry.ollama.ai/library/qwen2.5/0.5b"),
            ("someone/model", "registry.ollama.ai/someone/model/latest"),
            ("ollama.com/library/qwen2.5:7b", "registry.ollama.ai/library/qwen2.5/7b"),
            (QUANTIZED, "modelscope.cn/qwen/qwen2.5-7b-instruct-gguf/q4_k_m"),
        ],
    )
    def test_are_completed_as_ollama_does(self, name: str, whole: str) -> None:
        assert whole_name(name) == whole
        assert settings.read([small(model=name)]).serve["small"].model == name

    @pytest.mark.parametrize(
        "name", ["qwen2.5:", "a/b/c/d", "../x", "a b", "qwen2.5:7b;id", "-x", 'x"', "x\n", "modelscope.cn/x"]
    )
    def test_that_ollama_cannot_pull_are_refused(self, name: str) -> None:
        (sentence,) = refusals(small(model=name))
        assert sentence.startswith("serve.small.model: ")

    def test_of_three_parts_are_no_hub_ids_for_vllm(self) -> None:
        (sentence,) = refusals(small(model=QUANTIZED, engine="vllm"))
        assert "is not a hub id" in sentence


class TestTheArchive:
    newest = tomllib.loads((Path(archives.__file__).with_name("ollama.toml")).read_text())["release"][0]

    @pytest.mark.parametrize(("architecture", "word"), [("x86_64", "amd64"), ("aarch64", "arm64")])
    def test_is_the_newest_release_for_the_architecture(self, architecture: str, word: str) -> None:
        found = archives.ollama(Sources(), architecture)
        (row,) = [row for row in self.newest["archives"] if row["architecture"] == architecture]
        assert (found.version, found.sha256) == (self.newest["version"], row["sha256"])
        assert found.urls == (
            f"https://github.com/ollama/ollama/releases/download/v{found.version}/ollama-linux-{word}.tar.zst",
        )

    def test_is_sought_at_the_origin_after_the_mirror(self) -> None:
        first, second = archives.ollama(Sources(preset="china"), "x86_64").urls
        assert first.startswith("https://www.modelscope.cn/") and second.startswith("https://github.com/")

    def test_of_an_older_release_may_be_packed_with_gzip_which_every_host_has(self) -> None:
        old = planned(small(), {"sources": {"ollama_version": "0.13.3"}})
        assert old.ollama and old.ollama.archive
        assert (old.ollama.archive.packer, "zstd" in old.base_packages) == ("gzip", False)
        assert "zstd" in planned(small()).base_packages

    def test_of_an_unknown_version_needs_its_sha256(self) -> None:
        unknown = {"sources": {"ollama": "http://files.intranet/ollama", "ollama_version": "9.9.9"}}
        with pytest.raises(SettingsError, match=r"9.9.9 is not known here .* Set sources.ollama_sha256"):
            planned(small(), unknown)
        found = planned(small(), unknown, {"sources": {"ollama_sha256": SHA256}})
        assert found.ollama and found.ollama.archive
        assert found.ollama.archive.urls == (
            "http://files.intranet/ollama/v9.9.9/ollama-linux-amd64.tar.zst",
        )

    def test_cannot_be_given_a_sha256_of_no_version(self) -> None:
        assert refusals(small(), {"sources": {"ollama_sha256": SHA256}}) == [
            "sources.ollama_sha256: belongs to a version that is not named. Set sources.ollama_version."
        ]


class TestRefusals:
    @pytest.mark.parametrize("listen", ["0.0.0.0", "10.44.0.0/24", "fd00::/8"])
    def test_beyond_loopback_without_a_key(self, listen: str) -> None:
        access = {"access": {"listen": listen}}
        assert refusals(small(), access) == [
            f"access.listen: {listen} is not loopback and there is no key. "
            "Set access.api_key_file or access.api_key_env."
        ]

    def test_of_settings_that_ollama_has_no_use_for(self) -> None:
        assert refusals(small(dtype="half", flags={"swap-space": 1})) == [
            "serve.small.dtype: is for vLLM, and the engine is ollama. Leave it out.",
            "serve.small.flags: is for vLLM, and the engine is ollama. Leave it out.",
        ]


class TestThePlan:
    def test_has_no_environment_where_ollama_alone_serves(self) -> None:
        plan = planned(small())
        assert (plan.environment, plan.models) == (None, ())
        text = show.plans([plan], width=200)
        for word in ("ollama", TAG, "registry.ollama.ai", "loopback only"):
            assert word in text
        assert "torch" not in text and "python" not in text

    def test_gives_a_tag_of_unknown_size_an_hour_to_start_whether_or_not_it_is_there(self) -> None:
        stored = manifest("registry.ollama.ai/library/someone/7b", 1, 2)
        for probe in (BARE, with_ollama(stored, *blobs(1, 2))):
            (service,) = planned(small(model="someone:7b"), probe=probe).services
            assert service.start_timeout_seconds == 3600
        assert planned(small()).services[0].start_timeout_seconds < 700

    def test_keeps_vllms_environment_beside_it_with_vllms_pins(self) -> None:
        both = planned(small(), {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}})
        assert both.environment and both.environment.pins["vllm"]
        assert {service.name: service.port for service in both.services} == {"chat": 8000, "small": 8001}
        assert [model.model for model in both.models] == ["Qwen/Qwen2.5-0.5B-Instruct"]

    def test_gives_downloads_an_environment_without_vllm(self) -> None:
        found = planned(small(), {"models": {"Qwen/Qwen2.5-0.5B-Instruct": {}}})
        assert found.environment and not found.environment.pins["vllm"]

    def test_sets_the_context_that_was_asked_for(self) -> None:
        (service,) = planned(small(max_model_len=2048)).services
        assert service.environment["OLLAMA_CONTEXT_LENGTH"] == "2048"

    def test_removes_old_versions_but_not_those_that_another_unit_may_run(self) -> None:
        old = with_ollama("version 0.1.0")
        assert removed(old) == ("/opt/bringup/ollama/0.1.0",)
        unit = "\n".join(["Id=ollama-other.service", "ActiveState=active", ""])
        assert removed(probes.with_block(old, "units", unit)) == ()

    def test_removes_what_is_left_of_versions_but_not_what_is_being_unpacked(self) -> None:
        plan = planned(small())
        assert plan.ollama and plan.ollama.archive
        version = plan.ollama.archive.version
        found = removed(
            with_ollama("torn 0.1.0", "torn 0.2.0.part", f"torn {version}", f"torn {version}.part")
        )
        assert found == ("/opt/bringup/ollama/0.1.0", "/opt/bringup/ollama/0.2.0.part")

    def test_removes_ollama_with_its_last_service_and_the_models_when_asked(self) -> None:
        there = with_ollama(manifest(TestTheStore.path, 1, 2), *blobs(1, 2))
        there = probes.with_block(there, "paths", f"755 root:root d /opt/bringup/ollama\n755 a:a d {STORE}")
        assert removed(there, small(state="absent")) == ("/opt/bringup/ollama",)
        assert removed(there, small(state="absent"), PRUNE) == ("/opt/bringup/ollama", STORE)

    def test_removes_models_that_no_setting_names_when_asked(self) -> None:
        there = with_ollama(
            manifest(TestTheStore.path, 1, 2),
            manifest("modelscope.cn/Qwen/Qwen2.5-7B-Instruct-GGUF/Q4_K_M", 1, 3),
            *blobs(1, 2, 3, 4),
        )
        left_alone = planned(small(), probe=there).ollama
        assert left_alone and (left_alone.removed_tags, left_alone.unused_blobs) == ((), ())
        pruned = planned(small(), PRUNE, probe=there).ollama
        assert pruned and pruned.removed_tags == (QUANTIZED,)
        assert pruned.unused_blobs == (f"sha256-{4:064x}",)
        named = planned(small(), PRUNE, {"ollama": {"models": [QUANTIZED]}}, probe=there).ollama
        assert named and named.removed_tags == ()

    def test_keeps_what_a_cut_pull_left_until_every_model_is_there(self) -> None:
        plan = planned(small(), PRUNE, probe=with_ollama(*blobs(4))).ollama
        assert plan and plan.unused_blobs == ()

    def test_pulls_further_tags_for_its_services(self) -> None:
        plan = planned(small(), {"ollama": {"models": [QUANTIZED, TAG]}}).ollama
        assert plan and [tag.model for tag in plan.tags] == [TAG, QUANTIZED]
        (sentence,) = refusals({"ollama": {"models": [TAG]}})
        assert sentence.startswith("ollama.models: no service here is Ollama's.")
        (sentence,) = refusals(small(), {"ollama": {"models": ["a:"]}})
        assert sentence.startswith("ollama.models")


class TestTheStore:
    path = "registry.ollama.ai/library/qwen2.5/0.5b"
    tag = TagPlan(TAG, "", "", STORE)

    def seen(self, *lines: str) -> Probe:
        return parse(with_ollama(*lines))

    def test_has_a_model_when_all_of_its_files_are_there(self) -> None:
        assert self.tag.there(self.seen(manifest(self.path, 1, 2), *blobs(1, 2)))
        assert self.tag.there(self.seen(manifest("ollama.com/library/qwen2.5/0.5b", 1, 2), *blobs(1, 2)))

    def test_lacks_a_model_without_one_of_its_files_or_with_a_torn_manifest(self) -> None:
        assert not self.tag.there(self.seen(manifest(self.path, 1, 2), *blobs(1)))
        assert not self.tag.there(self.seen(f'manifest {self.path} {{"layers": [', *blobs(1, 2)))
        assert not self.tag.there(parse(BARE))

    def test_names_files_of_another_size_for_removal_since_a_pull_would_keep_them(self) -> None:
        short = f"blob 1 sha256-{2:064x}"
        seen = self.seen(manifest(self.path, 1, 2), *blobs(1), short)
        assert seen.ollama.damaged == {f"sha256-{2:064x}"}
        assert not self.tag.there(seen)


class TestTheUnit:
    plan = planned(small(model=QUANTIZED))

    def test_serves_on_loopback_and_waits_for_an_answer(self) -> None:
        assert self.plan.ollama and self.plan.ollama.archive
        (service,) = self.plan.services
        unit = list(unit_settings(unit_of(self.plan)))
        values = {name: value for section, name, value in unit if section == "Service"}
        assert words(values["ExecStart"]) == [f"{self.plan.ollama.archive.directory}/bin/ollama", "serve"]
        assert words(values["ExecStartPost"])[1:4] == [role.READY, "http://127.0.0.1:8000", QUANTIZED]
        variables = dict(words(value)[0].split("=", 1) for _, name, value in unit if name == "Environment")
        assert variables == {"OLLAMA_HOST": "127.0.0.1:8000", **service.environment}
        assert (values["User"], values["Restart"], values["ProtectSystem"]) == ("bringup", "always", "strict")
        assert "ReadWritePaths" not in values

    def test_lets_the_pauses_between_restarts_grow_where_systemd_can(self) -> None:
        old, new = (replace(self.plan, systemd=number) for number in (252, 254))
        assert "RestartSteps=" not in unit_of(old)
        assert "RestartSteps=" in unit_of(new)

    @pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
    @pytest.mark.parametrize("accelerator", ["cuda", "cpu"])
    def test_leaves_an_exposure_of_2_5_at_most(self, accelerator: str, tmp_path: Path) -> None:
        file = tmp_path / "ollama-small.service"
        file.write_text(unit_of(replace(self.plan, accelerator=accelerator)))
        assert exposure(file) <= hardening.MOST["ollama"]


class TestTheSettingsOfAServer:
    def variables(self, **server: Any) -> Mapping[str, str]:
        (service,) = planned(small(ollama=server)).services
        return service.environment

    def test_become_ollamas_variables(self) -> None:
        found = self.variables(
            keep_alive="30m",
            parallel=4,
            max_loaded=2,
            queue=64,
            load_timeout="1h",
            spread=True,
            kv_cache_type="f16",
            flash_attention=False,
            origins=["https://chat.example.org", "http://10.0.0.5:*"],
        )
        assert {
            "OLLAMA_KEEP_ALIVE": "30m",
            "OLLAMA_NUM_PARALLEL": "4",
            "OLLAMA_MAX_LOADED_MODELS": "2",
            "OLLAMA_MAX_QUEUE": "64",
            "OLLAMA_LOAD_TIMEOUT": "1h",
            "OLLAMA_SCHED_SPREAD": "1",
            "OLLAMA_KV_CACHE_TYPE": "f16",
            "OLLAMA_FLASH_ATTENTION": "0",
            "OLLAMA_ORIGINS": "https://chat.example.org,http://10.0.0.5:*",
        }.items() <= found.items()

    def test_left_out_leave_ollamas_own_defaults_and_keep_questions_on_the_host(self) -> None:
        assert {name for name in self.variables() if name.startswith("OLLAMA_")} == {
            "OLLAMA_CONTEXT_LENGTH",
            "OLLAMA_KEEP_ALIVE",
            "OLLAMA_LOAD_TIMEOUT",
            "OLLAMA_MAX_LOADED_MODELS",
            "OLLAMA_MODELS",
            "OLLAMA_NOPRUNE",
            "OLLAMA_NO_CLOUD",
        }

    def test_of_a_quantised_cache_switch_flash_attention_on(self) -> None:
        assert self.variables(kv_cache_type="q8_0")["OLLAMA_FLASH_ATTENTION"] == "1"
        (sentence,) = refusals(small(ollama={"kv_cache_type": "q8_0", "flash_attention": False}))
        assert sentence.startswith("serve.small.ollama.kv_cache_type: q8_0 needs flash attention")

    @pytest.mark.parametrize(
        "server",
        [
            {"keep_alive": "5"},
            {"keep_alive": "5m; id"},
            {"origins": ["https://a.example, https://b.example"]},
            {"origins": ["https://a.example/$HOME"]},
            {"kv_cache_type": "fp8"},
            {"parallel": 0},
        ],
    )
    def test_are_typed(self, server: dict[str, Any]) -> None:
        (sentence,) = refusals(small(ollama=server))
        assert sentence.startswith(f"serve.small.ollama.{next(iter(server))}")

    def test_that_are_misspelled_are_refused_with_the_right_name(self) -> None:
        assert refusals(small(ollama={"keepalive": "5m"})) == [
            "serve.small.ollama.keepalive: there is no such setting. Did you mean `keep_alive`?"
        ]

    def test_are_refused_for_vllm(self) -> None:
        model = "Qwen/Qwen2.5-0.5B-Instruct"
        assert refusals({"serve": {"chat": {"model": model, "ollama": {"parallel": 2}}}}) == [
            "serve.chat.ollama: is for Ollama, and the engine is vllm. Leave it out."
        ]


class TestADeploy:
    run = deploy(FakeHost("small", BARE, small()))
    kinds = run.kinds("small")

    def test_goes_from_the_archive_over_the_model_to_the_service(self) -> None:
        assert self.run.code == 0, self.run.output
        starts = [kind for kind in self.kinds if kind.startswith(("start", "service"))]
        assert starts == ["start packages", "start ollama", "start ollama-models", "service restart"]

    def test_touches_neither_conda_nor_python(self) -> None:
        sent = " ".join(trip.command for trip in self.run.execs["small"][1:])
        assert "conda" not in sent and "uv pip" not in sent

    def test_unpacks_over_what_is_left_of_a_version(self, tmp_path: Path) -> None:
        (start,) = [
            trip for trip in self.run.execs["small"] if "--unit=bringup-ollama.service" in trip.command
        ]
        last = [line for line in start.script().splitlines() if line.startswith(("sync", "rm -rf", "mv"))]
        goal = tmp_path / TestTheArchive.newest["version"]
        for directory in (goal / "lib", Path(f"{goal}.part") / "bin"):
            directory.mkdir(parents=True)
        script = "\n".join(last[-3:]).replace(f"/opt/bringup/ollama/{goal.name}", str(goal))
        subprocess.run(["sh", "-euc", script], check=True)
        assert [path.name for path in tmp_path.rglob("*")] == [goal.name, "bin"]

    def test_pulls_through_a_server_of_its_own_as_the_service_user(self) -> None:
        pull = pull_command(self.run).command
        assert f"--setenv=OLLAMA_HOST={role.PULL_ADDRESS}" in pull
        assert "--property=User=bringup" in pull
        assert pulled(self.run)[-4:] == ["pull", TAG, "registry.ollama.ai/library/qwen2.5/0.5b", "any"]


def test_a_host_as_planned_is_asked_once_and_sent_nothing() -> None:
    assert TestADeploy.run.code == 0
    plan = planned(small())
    assert plan.ollama and plan.ollama.archive
    paths, hashes = ["755 root:root d /opt/bringup/ollama", f"755 bringup:bringup d {STORE}"], []
    for trip in TestADeploy.run.execs["small"]:
        for line in trip.command.split(" && "):
            parts = line.split()
            if parts[:2] == ["install", "-d"]:
                paths.append(f"{parts[3]} {parts[5]}:{parts[7]} d {parts[9]}")
    for path, text in TestADeploy.run.files("small").items():
        mode = "755" if path.startswith("/opt/bringup/bin") else "600" if path == stamp.FILE else "644"
        paths.append(f"{mode} root:root f {path}")
        hashes.append(f"{hashlib.sha256(text.encode()).hexdigest()}  {path}")
    blocks = {
        "packages": [f"{name} ii  1.0" for name in plan.base_packages],
        "user": ["bringup:x:998:998::/var/lib/bringup:/usr/sbin/nologin"],
        "paths": paths,
        "hashes": hashes,
        "units": [
            "Id=ollama-small.service",
            "ActiveState=active",
            "UnitFileState=enabled",
            "NeedDaemonReload=no",
        ],
    }
    text = with_ollama(
        f"version {plan.ollama.archive.version}", manifest(TestTheStore.path, 1, 2), *blobs(1, 2)
    )
    for name, lines in blocks.items():
        text = probes.with_block(text, name, *lines)
    text = stamped(text, TestADeploy.run.execs["small"], plan)
    assert deploy(FakeHost("small", text, small())).kinds("small") == ["probe"]
