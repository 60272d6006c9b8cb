"""The vLLM unit as systemd reads it, and words that systemd hands on as they are."""

import dataclasses
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ops.render import render, unit_word
from plan import hardening, host, settings
from plan.decide import plan_host
from plan.probe import parse
from roles.vllm import deploy as vllm
from tests import probes
from tests.roles.security import exposure
from tests.roles.systemd_words import settings as unit_settings
from tests.roles.systemd_words import words

BARE = parse(probes.answer(probes.BARE))
FLAGS = {
    "override-generation-config": '{"temperature": 0.5}',
    "max-num-seqs": 8,
    "enable-log-requests": False,
}
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
ACCESS = {"access": {"listen": "10.44.0.0/24", "api_key_env": "KEY"}}


def unit(*layers: Mapping[str, object], **changes: Any) -> str:
    wanted = {"serve": {"chat": {"model": MODEL, "flags": FLAGS}}}
    plan = dataclasses.replace(plan_host("gpu-1", settings.read([wanted, *layers]), BARE), **changes)
    assert plan.environment
    return vllm.unit_text(plan, plan.environment, plan.services[0])


def value(text: str, name: str) -> str:
    (found,) = [found for _, setting, found in unit_settings(text) if setting == name]
    return found


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "a b",
        '{"a": 1}',
        "100%",
        "50%% off",
        "back\\slash",
        'say "x"',
        "it's",
        "",
        "a;b",
        ";",
        "#x",
        "tab\there",
    ],
)
def test_a_word_reaches_the_program_as_it_is(text: str) -> None:
    assert words(f"prog {unit_word(text)} next") == ["prog", text, "next"]


@pytest.mark.parametrize("text", ["a\nb", "$HOME", "${HOME}", "a\0b"])
def test_what_no_unit_can_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a unit cannot hold"):
        unit_word(text)


def test_a_template_that_asks_for_what_is_not_given_fails() -> None:
    with pytest.raises(Exception, match="undefined"):
        render("conda/uv.txt.j2")


class TestTheVllmUnit:
    def test_is_active_only_when_the_model_has_answered(self) -> None:
        text = unit()
        assert value(text, "Type") == "exec"
        _, ready, url, name, seconds = words(value(text, "ExecStartPost"))
        assert (ready, url, name) == (vllm.READY, "http://127.0.0.1:8000", "Qwen/Qwen2.5-0.5B-Instruct")
        assert int(value(text, "TimeoutStartSec")) > int(seconds)

    def test_gives_up_after_three_failed_starts_however_long_they_take(self) -> None:
        text = unit()
        starts = int(value(text, "StartLimitBurst"))
        assert int(value(text, "StartLimitIntervalSec")) > starts * int(value(text, "TimeoutStartSec"))

    def test_hands_flags_over_as_vllm_reads_them(self) -> None:
        command = words(value(unit(), "ExecStart"))
        at = command.index("--override-generation-config")
        assert command[at : at + 5] == [
            *("--override-generation-config", '{"temperature": 0.5}'),
            *("--max-num-seqs", "8", "--no-enable-log-requests"),
        ]

    def test_is_not_written_before_the_installed_vllm_has_said_that_it_knows_the_operators_flags(
        self,
    ) -> None:
        plan = plan_host(
            "gpu-1", settings.read([{"serve": {"chat": {"model": MODEL, "flags": FLAGS}}}]), BARE
        )
        (service,) = plan.services
        assert plan.environment
        first = vllm._flags_check(plan.environment, service, runs=False)
        assert "for flag in --no-enable-log-requests --max-num-seqs --override-generation-config;" in str(
            first
        )
        own = dataclasses.replace(service, unproven=())
        assert vllm._flags_check(plan.environment, own, runs=False) is None
        assert " --max-model-len " in str(vllm._flags_check(plan.environment, own, runs=True))

    def test_changes_with_the_pins_it_runs_on(self) -> None:
        other = unit({"environment": {"packages": ["langfuse==3.0.0"]}})
        assert value(unit(), "X-Bringup-Pins") != value(other, "X-Bringup-Pins")

    def test_stays_on_loopback_and_knows_no_key_whoever_may_reach_its_front(self) -> None:
        command = words(value(unit(ACCESS), "ExecStart"))
        at = command.index("--host")
        assert command[at : at + 4] == ["--host", "127.0.0.1", "--port", "18000"]
        assert "EnvironmentFile" not in unit(ACCESS)

    def test_runs_as_nobody_special_and_may_write_its_cache_only(self) -> None:
        text = unit()
        assert value(text, "User") == "bringup"
        assert (value(text, "ProtectSystem"), value(text, "CacheDirectory")) == (
            "strict",
            "bringup/vllm-chat",
        )
        assert value(text, "CapabilityBoundingSet") == ""

    @pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine")
    def test_is_a_unit_that_systemd_has_nothing_against(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host, "CONDA_PREFIX", str(tmp_path))
        programs = tmp_path / "envs/serve/bin"
        programs.mkdir(parents=True)
        for name in ("vllm", "python"):
            (programs / name).symlink_to("/bin/true")
        path = tmp_path / "vllm-chat.service"
        path.write_text(unit(ACCESS))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine")
    @pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
    def test_is_confined(self, tmp_path: Path, accelerator: str) -> None:
        path = tmp_path / "vllm-chat.service"
        path.write_text(unit(accelerator=accelerator))
        assert exposure(path) <= hardening.MOST["vllm"]

    def test_reaches_nothing_beyond_loopback_so_that_no_hub_can_be_needed(self) -> None:
        assert (value(unit(), "IPAddressDeny"), value(unit(), "IPAddressAllow")) == ("any", "localhost")

    def test_sees_no_devices_but_the_gpus(self) -> None:
        assert value(unit(accelerator="cuda"), "DeviceAllow") == "char-nvidia* rwm"
        assert value(unit(accelerator="cuda"), "DevicePolicy") == "closed"
        assert value(unit(), "PrivateDevices") == "yes"

    def test_is_asked_to_stop_so_that_it_can_finish_what_it_has_begun(self) -> None:
        text = unit()
        command = words(value(text, "ExecStart"))
        assert value(text, "KillMode") == "mixed"
        seconds = int(command[command.index("--shutdown-timeout") + 1])
        assert int(value(text, "TimeoutStopSec")) > seconds

    def test_waits_longer_after_each_failed_start_where_systemd_can(self) -> None:
        assert "RestartSteps" not in unit()
        assert value(unit(systemd=254), "RestartSteps") == "4"
