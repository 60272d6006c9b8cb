"""A service's address, flags and variables."""

import dataclasses
from typing import Any

import pytest

from plan import probe_gateway, settings
from plan.decide import plan_host
from plan.host import ServicePlan
from plan.probe import PciDevice, parse
from tests import probes

BARE = parse(probes.answer(probes.BARE))
DUAL = dataclasses.replace(BARE, addresses=("10.44.0.11", "10.1.7.3", "fd00::2"))
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
H100 = PciDevice("0000:18:00.0", "0x2330", "0x030200")


def service(*layers: dict[str, Any], **settings_of_service: Any) -> ServicePlan:
    one = {"serve": {"chat": {"model": MODEL} | settings_of_service}}
    return plan_host("gpu-1", settings.read([one, *layers]), DUAL).services[0]


def access(listen: str) -> dict[str, Any]:
    return {"access": {"listen": listen, "api_key_env": "KEY"}}


def test_the_hosts_address_in_the_network_is_taken_whatever_its_place() -> None:
    assert service(access("10.1.0.0/16")).address == "10.1.7.3"


def test_an_ipv6_network_gives_a_url_that_clients_understand() -> None:
    found = service(access("fd00::/8"))
    assert (found.address, found.url) == ("fd00::2", "https://[fd00::2]:8000")


def test_an_address_is_taken_as_it_is_written_though_the_probe_did_not_see_it() -> None:
    assert service(access("192.0.2.9")).address == "192.0.2.9"
    assert service(access("192.0.2.9/32")).address == "192.0.2.9"


def test_loopback_needs_no_key_and_every_other_address_does() -> None:
    assert not service().needs_key
    assert not service(access("::1")).needs_key
    assert service(access("0.0.0.0")).needs_key
    assert service(access("10.1.0.0/16")).needs_key


def test_the_operators_flags_win_over_decided_ones_and_the_rest_stays() -> None:
    decided = service().flags
    found = service(flags={"kv-cache-memory-bytes": 2**31, "enable-prefix-caching": False}).flags
    assert found == dict(decided) | {"kv-cache-memory-bytes": 2**31, "enable-prefix-caching": False}


def test_decided_flags_are_spelled_as_the_operator_would_spell_them() -> None:
    gpu = dataclasses.replace(BARE, pci=(H100,), driver="580.65.06")
    wish = {"serve": {"chat": {"model": MODEL, "max_model_len": 4096}}}
    (found,) = plan_host("gpu-1", settings.read([wish]), gpu).services
    assert found.flags["max-model-len"] == 4096
    assert not [name for name in found.flags if "_" in name]


def test_clients_ask_for_the_model_id_unless_another_name_is_set() -> None:
    assert service().served_name == MODEL
    assert service(served_name="chat").served_name == "chat"


def test_nothing_is_sent_home_and_no_hub_is_asked_while_serving() -> None:
    variables = service().environment
    for name in ("DO_NOT_TRACK", "VLLM_NO_USAGE_STATS", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        assert variables[name] == "1"


def test_a_host_without_a_gpu_never_compiles_while_it_serves() -> None:
    assert service().environment["TORCH_COMPILE_DISABLE"] == "1"


def test_each_service_has_a_cache_of_its_own() -> None:
    both = {"serve": {"a": {"model": MODEL}, "b": {"model": MODEL}}}
    homes = {found.environment["HOME"] for found in plan_host("h", settings.read([both]), BARE).services}
    assert homes == {"/var/cache/bringup/vllm-a", "/var/cache/bringup/vllm-b"}


def test_a_start_may_take_longer_where_disks_turn_or_are_not_known() -> None:
    large = {"serve": {"chat": {"model": "Qwen/Qwen2.5-7B-Instruct"}}}
    roomy = dataclasses.replace(BARE, memory_gib=64.0)

    def bound(turn: bool | None) -> int:
        seen = dataclasses.replace(roomy, disks_turn=turn)
        return plan_host("h", settings.read([large]), seen).services[0].start_timeout_seconds

    assert bound(turn=False) == 600 + 14 * 4
    assert bound(turn=True) == bound(None) > 600 + 14 * 12


def test_clients_of_a_service_reach_it_where_they_did_when_another_comes_before_it() -> None:
    two = {"serve": {"chat": {"model": MODEL}, "alpha": {"model": MODEL}}}
    front = probe_gateway.parse({"gateway": ["port 8000", "port 8001", "switch chat", "switch left"]})
    probe = dataclasses.replace(DUAL, gateway=front, memory_gib=64.0, memory_available_gib=64.0)

    def ports(**alpha: Any) -> dict[str, int]:
        wanted = settings.read([two, access("10.44.0.0/16"), {"serve": {"alpha": alpha}}])
        return {one.name: one.port for one in plan_host("gpu-1", wanted, probe).services}

    assert ports() == {"alpha": 8001, "chat": 8000}
    # what the settings say comes first
    assert ports(port=8000) == {"alpha": 8000, "chat": 8001}


@pytest.mark.parametrize(
    ("layers", "first", "kept", "dealt"),
    [
        ([access("10.44.0.0/16")], 18000, {"chat": 18000}, 18001),
        ([access("10.44.0.0/16")], 18000, {"chat": 18000, "left": 18001}, 18002),
        ([], 8000, {"chat": 8000}, 8001),
    ],
    ids=["behind a front", "beside one that goes", "on its own"],
)
def test_a_new_service_takes_no_port_of_one_that_serves(
    layers: list[dict[str, Any]], first: int, kept: dict[str, int], dealt: int
) -> None:
    two = {"serve": {"chat": {"model": MODEL}, "alpha": {"model": MODEL}}}
    units = {port: f"vllm-{name}.service" for name, port in kept.items()}
    probe = dataclasses.replace(DUAL, unit_ports=units, memory_gib=64.0, memory_available_gib=64.0)
    found = {one.name: one for one in plan_host("gpu-1", settings.read([two, *layers]), probe).services}
    assert {name: one.inner_port for name, one in found.items()} == {"alpha": dealt, "chat": first}
