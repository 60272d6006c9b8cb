"""Who may reach which route of a service, and what the front of a host is made out to."""

import dataclasses
from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.errors import PlanError, SettingsError
from plan.gateway import GatewayPlan, routes
from plan.host import HostPlan
from plan.probe import Unit, parse
from plan.probe_gateway import InstalledGateway, fingerprint
from tests import probes

BARE = dataclasses.replace(parse(probes.answer(probes.BARE)), addresses=("10.44.0.11", "10.1.7.3"))
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
TWO = {"serve": {"a": {"model": MODEL, "port": 9000}, "b": {"model": MODEL}}}
# `openssl req -x509 -newkey ec ...` and what `openssl x509 -fingerprint -sha256` says of it
PEM = """-----BEGIN CERTIFICATE-----
MIIBfTCCASOgAwIBAgIUQ8F0
-----END CERTIFICATE-----
"""


def planned(listen: str = "10.1.0.0/16", seen: InstalledGateway | None = None, **access: Any) -> HostPlan:
    probe = dataclasses.replace(BARE, gateway=seen or InstalledGateway())
    wish = {"access": {"listen": listen, "api_key_env": "KEY"} | access}
    return plan_host("gpu-1", settings.read([TWO, wish]), probe)


def front(listen: str = "10.1.0.0/16", seen: InstalledGateway | None = None, **access: Any) -> GatewayPlan:
    found = planned(listen, seen, **access).gateway
    assert found
    return found


def test_loopback_needs_no_front() -> None:
    assert planned("127.0.0.1").gateway is None
    assert planned("::1").gateway is None


def test_each_engine_stays_on_a_loopback_port_of_its_own_behind_its_front() -> None:
    found = planned()
    assert [service.inner for service in found.services] == ["127.0.0.1:18000", "127.0.0.1:18001"]
    assert [service.url for service in found.services] == ["https://10.1.7.3:9000", "https://10.1.7.3:8000"]
    assert [(one.listen, one.upstream) for one in front().fronts] == [
        ("10.1.7.3:9000", "127.0.0.1:18000"),
        ("10.1.7.3:8000", "127.0.0.1:18001"),
    ]


def test_a_port_that_the_operator_takes_is_not_given_to_an_engine() -> None:
    wish = {"serve": {"a": {"port": 18000}}}
    access = {"access": {"listen": "10.1.0.0/16", "api_key_env": "KEY"}}
    services = plan_host("gpu-1", settings.read([TWO, wish, access]), BARE).services
    assert [service.inner_port for service in services] == [18001, 18002]


def test_a_port_that_another_program_holds_is_not_given_to_an_engine_and_its_own_is_kept() -> None:
    unit = Unit("active", "running", "enabled", "success", 9, 0, False)
    held = dataclasses.replace(
        BARE,
        listening={18000: "redis-server (pid 8)", 18001: "vllm (pid 9), python (pid 12)"},
        units={"vllm-a.service": unit},
    )
    access = {"access": {"listen": "10.1.0.0/16", "api_key_env": "KEY"}}
    services = plan_host("gpu-1", settings.read([TWO, access]), held).services
    assert [service.inner_port for service in services] == [18001, 18002]


def test_a_port_that_the_front_holds_since_a_run_was_cut_is_no_conflict() -> None:
    unit = Unit("active", "running", "enabled", "success", 9, 0, False)
    held = dataclasses.replace(
        BARE, listening={9000: "nginx (pid 47)"}, units={"bringup-gateway.service": unit}
    )
    access = {"access": {"listen": "10.1.0.0/16", "api_key_env": "KEY"}}
    with pytest.raises(PlanError, match="9000 is taken on this host by nginx"):
        plan_host("gpu-1", settings.read([TWO, access]), held)
    own = dataclasses.replace(held, gateway=InstalledGateway(ports=frozenset({9000})))
    assert plan_host("gpu-1", settings.read([TWO, access]), own).gateway


@pytest.mark.parametrize("engine", ["vllm", "ollama"])
def test_what_changes_a_server_or_its_models_is_not_forwarded(engine: str) -> None:
    forwarded = {route.path for route in routes(engine)}
    assert "/v1/chat/completions" in forwarded
    for part in (
        "lora",
        "sleep",
        "pause",
        "reset",
        "rpc",
        "pull",
        "create",
        "delete",
        "push",
        "blobs",
        "copy",
    ):
        assert not [path for path in forwarded if part in path]


def test_health_and_metrics_are_for_monitoring_addresses_and_need_one() -> None:
    assert not {"/health", "/metrics"} & {route.path for one in front().fronts for route in one.routes}
    assert set(front(monitoring=["10.2.0.0/24"]).fronts[0].monitored) == {"/health", "/metrics"}


def test_a_certificate_is_made_out_to_every_address_that_clients_may_write() -> None:
    assert front().names == ("DNS:bare", "IP:10.1.7.3")
    assert front("0.0.0.0").names == ("DNS:bare", "IP:10.1.7.3", "IP:10.44.0.11")


def test_a_certificate_is_kept_until_it_ends_or_the_names_change() -> None:
    there = InstalledGateway(user=True, certificate=PEM, names="DNS:bare\nIP:10.1.7.3\n")
    assert front().renew
    assert not front(seen=there).renew
    assert front(seen=there).fingerprint == fingerprint(PEM)
    assert front("10.44.0.0/24", seen=there).renew
    assert front(seen=dataclasses.replace(there, ends_soon=True)).renew


def test_without_tls_nothing_of_a_certificate_is_made() -> None:
    found = front(tls="off")
    assert (found.certificate, found.renew) == ("none", False)


def test_an_nginx_that_cannot_check_keys_is_refused_before_anything_is_changed() -> None:
    with pytest.raises(PlanError) as refused:
        front(seen=InstalledGateway(nginx=True))
    assert refused.value.sentences == [
        "access.listen: the front needs nginx with its secure_link module, and that of this host has none. "
        "Install nginx instead, or set access.listen to 127.0.0.1."
    ]


@pytest.mark.parametrize(
    ("access", "sentence"),
    [
        (
            {"certificate_file": "a.pem"},
            "access.certificate_file: goes with certificate_key_file. Set both, or neither.",
        ),
        (
            {"certificate_file": "a.pem", "certificate_key_file": "b.pem", "tls": "off"},
            "access.certificate_file: is of no use without TLS. Leave out `tls: off`.",
        ),
        (
            {"monitoring": ["10.1.0.0/40"]},
            "access.monitoring: '10.1.0.0/40' is no address or network. Write one such as '10.1.0.9'.",
        ),
    ],
)
def test_settings_that_cannot_hold_are_refused(access: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        front(**access)
    assert refused.value.sentences == [sentence]
