"""The fleet's plans as tables: one per distinct plan, with reasons and warnings."""

import dataclasses
from collections.abc import Mapping

from plan import settings, show
from plan.decide import plan_host
from plan.host import HostPlan
from plan.probe import PciDevice, parse
from plan.probe_driver import InstalledDriver, Kernel
from tests import probes

BARE = parse(probes.answer(probes.BARE))
H100 = dataclasses.replace(BARE, pci=(PciDevice("0000:18:00.0", "0x2330", "0x030200"),), driver="550.54.15")
ONE = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}


def plan(host: str, *layers: Mapping[str, object], gpu: bool = False) -> HostPlan:
    return plan_host(host, settings.read([ONE, *layers]), H100 if gpu else BARE)


def test_hosts_with_the_same_plan_share_a_table() -> None:
    text = show.plans([plan("b"), plan("a"), plan("c", gpu=True)])
    assert text.count("Plan for") == 2
    assert "Plan for a, b\n" in "\n".join(line.rstrip() + "\n" for line in text.splitlines())


def test_hosts_that_differ_in_their_own_address_only_share_one_too() -> None:
    access = {"access": {"listen": "10.44.0.0/24", "api_key_env": "KEY"}}
    other = dataclasses.replace(BARE, addresses=("10.44.0.12",))
    here, there = plan("a", access), plan_host("b", settings.read([ONE, access]), other)
    assert show.plans([here, there]).count("Plan for") == 1


def test_many_hosts_are_counted_not_listed() -> None:
    same = plan("host-00")
    text = show.plans([dataclasses.replace(same, host=f"host-{number:02}") for number in range(20)])
    assert "host-07 and 12 more" in text
    assert "host-08" not in text


def test_what_is_planned_is_shown_with_every_pin() -> None:
    found = plan("a", gpu=True)
    assert found.environment
    text = show.plans([found], width=200)
    for versions in found.environment.pins.values():
        for name, version in versions.items():
            assert name in text and version in text
    assert "1 x H100 SXM5 80GB" in text
    assert "550.54.15 (kept)" in text
    assert "port 8000" in text and "loopback only" in text


def test_warnings_are_printed_below_the_table_even_with_brackets() -> None:
    found = dataclasses.replace(plan("a"), warnings=("driver [550] has ended [bold]",))
    assert "warning: driver [550] has ended [bold]" in show.plans([found])


def test_what_is_removed_is_shown() -> None:
    found = dataclasses.replace(plan("a"), removed_services=("vllm-old.service",))
    assert "vllm-old.service" in show.plans([found])


def test_what_happens_to_the_driver_is_shown_before_it_happens() -> None:
    kernel = Kernel("6.1.0-56-amd64", True, "offered", None)
    bare = dataclasses.replace(
        H100, driver=None, virtualization="none", modules=("nouveau",), kernel=kernel.version
    )
    bare = dataclasses.replace(bare, nvidia=InstalledDriver({}, (kernel,), kernel.version))
    text = show.plans([plan_host("a", settings.read([ONE]), bare)], width=200)
    assert "installs nvidia-driver-cuda nvidia-kernel-open-dkms" in text
    assert "builds the module for 6.1.0-56-amd64" in text
    assert "holds what belongs to it" in text
    assert "waits for yours" in text and "nouveau holds the card" in text
