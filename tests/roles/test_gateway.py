"""The front's configuration and unit: no key in it, compared by a digest, confined."""

import base64
import dataclasses
import hashlib
import re
import shutil
from pathlib import Path

import pytest

from plan import hardening, settings
from plan.decide import plan_host
from plan.gateway import DIRECTORY, GatewayPlan
from plan.probe import parse
from plan.secrets import salt
from roles.gateway import deploy as gateway
from tests import probes
from tests.roles.security import exposure

KEY = "a-key-that-nobody-may-see-0123"
SERVED = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}


def planned(**access: object) -> GatewayPlan:
    wish = {"access": {"listen": "10.44.0.0/24", "api_key_env": "KEY"} | access}
    plan = plan_host("gpu-1", settings.read([SERVED, wish]), parse(probes.answer(probes.BARE)))
    assert plan.gateway
    return plan.gateway


def test_the_key_is_compared_by_the_digest_of_it_and_a_secret_salt() -> None:
    text = gateway.configuration_text(planned(), KEY)
    (digest,) = re.findall(r"secure_link (\S+);", text)
    (salted,) = re.findall(r'secure_link_md5 "([0-9a-f]{64})\$presented"', text)
    assert base64.urlsafe_b64decode(digest + "==") == hashlib.md5(f"{salted}{KEY}".encode()).digest()
    assert KEY not in text


def test_another_key_has_another_salt_and_the_same_key_the_same() -> None:
    assert gateway.configuration_text(planned(), KEY) == gateway.configuration_text(planned(), KEY)
    assert salt(KEY) != salt(KEY + "x")


def test_every_forwarded_route_asks_for_the_key_first() -> None:
    text = gateway.configuration_text(planned(monitoring=["10.2.0.9"]), KEY)
    blocks = re.findall(r"location [=~] (\S+) \{(.*?)\n        \}", text, flags=re.DOTALL)
    assert len(blocks) > 8
    for path, block in blocks:
        guarded = 'if ($secure_link != "1")' in block
        watched = re.search(r"allow 10\.2\.0\.9;\s+deny all;", block) is not None
        assert guarded != watched, path
        assert watched == (path in ("/health", "/metrics"))


def test_the_engine_never_sees_the_key() -> None:
    assert 'proxy_set_header Authorization "";' in gateway.configuration_text(planned(), KEY)


def test_plain_http_names_no_certificate() -> None:
    text = gateway.configuration_text(planned(tls="off"), KEY)
    assert "listen 10.44.0.11:8000;" in text
    assert "ssl_certificate" not in text


def test_only_chosen_clients_may_connect_where_they_are_named() -> None:
    chosen = planned(clients=["10.44.0.0/24"])
    assert re.search(r"allow 10\.44\.0\.0/24;\s+deny all;", gateway.configuration_text(chosen, KEY))
    assert "IPAddressAllow=localhost 10.44.0.0/24" in gateway.unit_text(chosen)
    watched = planned(clients=["10.44.0.0/24"], monitoring=["10.2.0.9", "10.44.0.0/24"])
    assert "IPAddressAllow=localhost 10.44.0.0/24 10.2.0.9\n" in gateway.unit_text(watched)
    for anyone in (planned(), planned(monitoring=["10.2.0.9"])):
        assert "IPAddressDeny" not in gateway.unit_text(anyone)


def test_a_given_certificate_is_used_and_none_is_made() -> None:
    given = dataclasses.replace(planned(), certificate="given", renew=False)
    assert f"ssl_certificate {DIRECTORY}/given-certificate.pem;" in gateway.configuration_text(given, KEY)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine")
def test_the_front_is_confined(tmp_path: Path) -> None:
    path = tmp_path / "bringup-gateway.service"
    path.write_text(gateway.unit_text(planned()))
    assert exposure(path) <= hardening.MOST["front"]
