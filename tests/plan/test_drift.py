"""Sabotage, one at a time: each is found, told in one sentence with its mover, and nothing else is."""

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from plan import settings, stamp
from plan.decide import plan_host
from plan.drift import Difference, Seen, differences
from plan.host import HostPlan
from plan.nvidia_plan import DriverWork
from plan.probe import Probe, parse
from tests import probes
from tests.probes import with_block
from tests.roles.served import served

MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
DATA: dict[str, Any] = {"serve": {"chat": {"model": MODEL}}}
UNIT = "/etc/systemd/system/vllm-chat.service"
KEY = "/etc/bringup/gateway/nginx.conf"
TEXT = "[Service]\nUser=bringup\nExecStart=/bin/vllm serve\n"
SHA = "a" * 64


def planned(text: str, **more: Any) -> HostPlan:
    return plan_host("gpu-1", settings.read([DATA, more]), parse(text))


BARE = probes.answer(probes.BARE)
GPU = with_block(with_block(BARE, "pci", "0000:18:00.0 0x10de 0x2330 0x030200"), "driver", "580.65.06")
FILES = {
    UNIT: stamp.StampedFile("644", "root:root", SHA, TEXT),
    KEY: stamp.StampedFile("640", "root:bringup-gateway", None, None),
}


def converged(bare: str) -> str:
    """The host right after a deploy, with two files that were written."""
    plan = planned(bare)
    text = served(bare, [], plan)
    assert plan.environment
    lock = plan.environment.lock_file
    paths = [
        f"644 root:root f {UNIT}",
        f"640 root:bringup-gateway f {KEY}",
        f"644 root:root f {lock}",
    ]
    text = with_block(text, "paths", *paths)
    text = with_block(text, "hashes", f"{SHA}  {UNIT}", f"{SHA}  {KEY}", f"{SHA}  {lock}")
    return with_block(text, "state", *stamp.state(parse(text), plan.base_packages).splitlines())


THERE, GPU_THERE = converged(BARE), converged(GPU)


def stamped(bare: str = BARE, **changed: Any) -> str:
    kept = stamp.Stamp("0.1.0", "2026-11-22T10:00:00+00:00", "s1", stamp.lasting(planned(bare)), FILES)
    return dataclasses.replace(kept, **changed).text()


def found(
    text: str = THERE,
    seen: Seen | None = None,
    plan: HostPlan | None = None,
    digest: str = "s1",
    version: str = "0.1.0",
) -> tuple[Difference, ...]:
    probe: Probe = parse(text)
    return differences(
        plan or plan_host("gpu-1", settings.read([DATA]), probe),
        probe,
        seen or Seen(stamped(), texts={UNIT: TEXT}),
        digest,
        version,
    )


def changed(old: str, new: str, text: str = THERE) -> str:
    """The host with the first match of a pattern replaced; there must be one."""
    made, count = re.subn(old, new, text, count=1, flags=re.MULTILINE)
    assert count, old
    return made


def test_a_host_as_the_deploy_left_it_has_no_difference() -> None:
    assert found() == ()


def test_a_gpu_host_as_the_deploy_left_it_has_none_either() -> None:
    assert found(GPU_THERE, Seen(stamped(GPU))) == ()


def edited() -> tuple[Difference, ...]:
    there = changed(f"^{SHA}  {UNIT}", f"{'b' * 64}  {UNIT}")
    return found(there, Seen(stamped(), texts={UNIT: TEXT.replace("bringup", "root")}))


# What was done -> what is found, and the words in which it is told.
SABOTAGE: dict[str, tuple[Callable[[], tuple[Difference, ...]], str]] = {
    "downgraded package": (
        lambda: found(changed(r"^libnuma1 ii  1\.0-1", "libnuma1 ii  0.9-1")),
        r"package libnuma1 is 0\.9-1, and was 1\.0-1 at the deploy",
    ),
    "removed package": (
        lambda: found(changed(r"^curl ii .*\n", "")),
        r"package curl 1\.0-1 was removed",
    ),
    "edited unit": (edited, rf"{UNIT} was edited on the host since the deploy of 2026-11-22\."),
    "removed unit file": (
        lambda: found(changed(rf"^644 .* {UNIT}\n", "")),
        rf"{UNIT} was removed from the host",
    ),
    "stopped service": (
        lambda: found(changed("ActiveState=active", "ActiveState=inactive"), plan=planned(THERE)),
        r"vllm-chat\.service is inactive",
    ),
    "disabled service": (
        lambda: found(changed("UnitFileState=enabled", "UnitFileState=disabled")),
        r"vllm-chat\.service is disabled: a reboot ends it",
    ),
    "drop-in": (
        lambda: found(seen=Seen(stamped(), drop_ins={"vllm-chat.service": "/etc/x.d/a.conf"})),
        r"vllm-chat\.service is changed by /etc/x\.d/a\.conf",
    ),
    "changed model file": (
        lambda: found(changed(r"^file \d+ ", "file 17 ")),
        rf"{MODEL} in .*: model\.safetensors was changed",
    ),
    "changed model byte, with size and time as before": (
        lambda: found(
            seen=Seen(
                stamped(),
                hashes={planned(THERE).models[0].directory: {"model.safetensors": "f" * 64}},
            )
        ),
        r"model\.safetensors has other bytes than were verified",
    ),
    "removed model file": (
        lambda: found(changed(r"^file \d+ \S+ model\.safetensors\n", "")),
        r"model\.safetensors is gone",
    ),
    "world-readable key": (
        lambda: found(changed(rf"^640 (.* {KEY})", r"644 \1")),
        rf"{KEY} is root:bringup-gateway 644, deployed was root:bringup-gateway 640",
    ),
    "missing environment": (
        lambda: found(changed(r"^prefix /opt/bringup/conda/envs/serve\n(?:(?:conda|dist) .*\n)*", "")),
        r"/opt/bringup/conda/envs/serve: there is no whole environment any more",
    ),
    "wrong transformers": (
        lambda: found(changed(r"^dist transformers-\d+\.\d+\.\d+", "dist transformers-4.37.0")),
        r"transformers is 4\.37\.0 in .*, planned is ",
    ),
    "wrong conda package": (
        lambda: found(changed(r"^conda python-3.*\n", "")),
        r"python-3\S+ was removed from /opt/bringup/conda/envs/serve",
    ),
    "edited lock": (
        lambda: found(changed(rf"^{SHA}  (/etc/bringup/env)", rf"{'c' * 64}  \1")),
        r"/etc/bringup/environments/serve/requirements-\S+ was edited",
    ),
    "deleted stamp": (lambda: found(seen=Seen(None)), rf"{stamp.FILE} is not there"),
    "garbled stamp": (lambda: found(seen=Seen("{}")), rf"{stamp.FILE} cannot be read as a stamp"),
    "new kernel without module": (
        lambda: found(
            changed(r"^580\.65\.06\n", "", changed(r"(@@kernel\n).*", r"\g<1>6.1.0-99", GPU_THERE)),
            Seen(stamped(GPU)),
            planned(GPU_THERE),
        ),
        r"no NVIDIA module is loaded since kernel 6\.1\.0-99 \(\S+ at the deploy\); it was 580\.65\.06",
    ),
}


@pytest.mark.parametrize("how", SABOTAGE)
def test_sabotage_of_the_host_is_found_and_nothing_else(how: str) -> None:
    act, words = SABOTAGE[how]
    (difference,) = act()
    assert difference.mover == "host"
    assert re.search(words, difference.sentence)


def test_an_edit_is_shown_as_a_difference_of_lines() -> None:
    (difference,) = edited()
    assert "-User=bringup" in difference.diff.splitlines()
    assert "+User=root" in difference.diff.splitlines()


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (DriverWork(hold=("nvidia-driver",)), "packages nvidia-driver are held no more"),
        (
            DriverWork(install=("libcuda1",), build=("6.1.0-99",)),
            "packages libcuda1 are missing, or of another",
        ),
        (DriverWork(build=("6.1.0-99",)), "kernel 6.1.0-99 has no NVIDIA module of the planned driver"),
    ],
    ids=["removed hold", "downgraded driver library", "new kernel without module"],
)
def test_what_happened_to_a_maintained_driver_is_told_once(work: DriverWork, words: str) -> None:
    plan = planned(GPU_THERE)
    plan = dataclasses.replace(plan, driver=dataclasses.replace(plan.driver, action="install", work=work))
    (difference,) = found(GPU_THERE, Seen(stamped(GPU)), plan)
    assert difference.mover == "host" and words in difference.sentence


class TestWhoMoved:
    longer = planned(THERE, serve={"chat": {"max_model_len": 4096}})

    def test_the_settings_when_they_are_others(self) -> None:
        told = {difference.about: difference for difference in found(plan=self.longer, digest="s2")}
        assert {difference.mover for difference in told.values()} == {"settings"}
        assert "the settings now give 4096" in told["services.chat.flags.max-model-len"].sentence

    def test_this_program_when_it_decides_otherwise_from_the_same_settings(self) -> None:
        told = found(plan=self.longer, version="0.2.0")
        assert {difference.mover for difference in told} == {"program"}
        assert any("bringup 0.2.0 now decides 4096" in difference.sentence for difference in told)

    def test_the_host_when_neither_has_changed(self) -> None:
        assert {difference.mover for difference in found(plan=self.longer)} == {"host"}

    def test_nobody_when_other_settings_give_the_same_plan(self) -> None:
        assert found(digest="s2", version="0.2.0") == ()

    def test_a_new_kernel_whose_module_is_loaded_is_no_difference(self) -> None:
        there = changed(r"(@@kernel\n).*", r"\g<1>6.1.0-99", GPU_THERE)
        assert found(there, Seen(stamped(GPU))) == ()

    def test_an_empty_part_that_the_deploying_version_did_not_know_is_no_difference(self) -> None:
        kept = json.loads(stamped())
        assert kept["plan"].pop("apt_sources") is None
        assert found(seen=Seen(json.dumps(kept))) == ()

    def test_long_values_are_not_told_in_full(self) -> None:
        kept = json.loads(stamped())
        kept["plan"]["environment"]["explicit_lock"] = "x" * 5000
        (difference,) = found(seen=Seen(json.dumps(kept)))
        assert len(difference.sentence) < 250
