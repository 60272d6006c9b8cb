"""Whether a changed service answers beside the one that serves, or after it: by what is free."""

import dataclasses
from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.host import HostPlan, ServicePlan
from plan.probe import Probe, Unit
from plan.probe_gateway import InstalledGateway
from plan.show import plans
from tests.plan.test_seats import BARE, LARGE, SMALL, TAG, gpus, host

SERVES = Unit("active", "running", "enabled", "success", 9, 0, False)
FRONTED = {"access": {"listen": "10.44.0.0/24", "api_key_env": "KEY"}}
UNITS = dict.fromkeys(("vllm-a.service", "ollama-b.service", "bringup-gateway.service"), SERVES)


def serving(probe: Probe, **changes: Any) -> Probe:
    """The host where services and front are at work."""
    here: dict[str, Any] = {"units": UNITS, "gateway": InstalledGateway(switches=frozenset({"a", "b"}))}
    return dataclasses.replace(probe, **here | changes)


def planned(probe: Probe, layer: dict[str, Any] | None = None, **services: dict[str, Any]) -> HostPlan:
    return plan_host(
        "gpu-1", settings.read([{"serve": services}, FRONTED if layer is None else layer]), probe
    )


def way(probe: Probe, layer: dict[str, Any] | None = None, **services: dict[str, Any]) -> ServicePlan:
    return planned(probe, layer, **services).services[0]


def reason(service: ServicePlan) -> str:
    assert service.replacing
    assert service.second is None
    return service.replacing.because


def in_use(probe: Probe, gpu: int, used_mib: int) -> Probe:
    """The host where one of the GPUs is at work on something, and the others on nothing."""
    cards = probe.smi.split("<fb_memory_usage>")
    used = [f"<used>{used_mib if place == gpu else 4} MiB</used>" for place in range(len(cards) - 1)]
    parts = [f"<fb_memory_usage>{use}{card}" for use, card in zip(used, cards[1:], strict=True)]
    return dataclasses.replace(probe, smi=cards[0] + "".join(parts))


def test_where_nothing_serves_nothing_is_replaced() -> None:
    assert way(BARE, a={"model": SMALL}).replacing is None


def test_with_memory_for_two_the_new_one_answers_on_a_port_of_its_own_first() -> None:
    service = way(serving(BARE), a={"model": SMALL})
    assert service.second
    assert service.second.inner == "127.0.0.1:19000"
    assert (service.second.unit, service.second.flags) == (service.unit, service.flags)
    assert "a changed one answers before" in " ".join(
        plans([planned(serving(BARE), a={"model": SMALL})]).split()
    )


def test_without_a_front_the_old_one_holds_the_port_until_it_is_stopped() -> None:
    assert reason(way(serving(BARE), {}, a={"model": SMALL})) == "no front holds its port"


@pytest.mark.parametrize(
    "changes",
    [
        {"gateway": InstalledGateway()},
        {"units": UNITS | {"bringup-gateway.service": dataclasses.replace(SERVES, active="failed")}},
    ],
)
def test_a_front_that_cannot_be_turned_is_not_relied_on(changes: dict[str, Any]) -> None:
    assert reason(way(serving(BARE, **changes), a={"model": SMALL})) == "its front cannot be turned yet"


def test_memory_that_is_in_use_now_is_not_counted_on() -> None:
    tight = serving(BARE, memory_available_gib=1.0)
    assert reason(way(tight, a={"model": SMALL})) == "the host's memory has no room for two"


def test_memory_that_the_plan_gives_to_others_is_not_counted_on() -> None:
    tight = serving(BARE, memory_gib=6.0, memory_available_gib=6.0)
    cache = {"flags": {"kv-cache-memory-bytes": 2**30}}
    assert reason(way(tight, a={"model": SMALL, **cache}, b=TAG)) == "the host's memory has no room for two"


def test_a_gpu_that_nobody_has_takes_the_second_one() -> None:
    service = way(in_use(serving(host(2)), 0, 70_000), a={"model": SMALL, "gpus": 1})
    assert service.second
    assert (gpus(service), gpus(service.second)) == ([0], [1])


def test_a_gpu_that_is_in_use_takes_no_second_one() -> None:
    both = in_use(serving(host(2)), 1, 3_000)
    assert reason(way(both, a={"model": SMALL, "gpus": 1})) == "no GPU has room for a second one"
    assert reason(way(serving(host(1)), a={"model": LARGE})) == "no GPU has room for a second one"


def test_a_share_of_a_gpu_leaves_room_for_another_share() -> None:
    half = {"model": SMALL, "gpu_memory_utilization": 0.4}
    service = way(in_use(serving(host(1)), 0, 33_000), a=half)
    assert service.second
    assert gpus(service.second) == [0]
    full = {"model": SMALL, "gpu_memory_utilization": 0.6}
    assert reason(way(in_use(serving(host(1)), 0, 33_000), a=full)) == "no GPU has room for a second one"


def test_the_second_ports_are_not_those_of_others() -> None:
    held = serving(BARE, listening={19000: "redis-server (pid 8)"})
    service = way(held, a={"model": SMALL})
    assert service.second
    assert service.second.inner_port == 19001
