"""Whom the checks trust when they ask a front, and where they ask it."""

import dataclasses
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
import testinfra.host
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pyinfra.api.host import Host

from plan import settings
from plan.decide import plan_host
from plan.probe import parse
from tests import probes
from tests.verify.api import asked_at, is_shut_out, monitored, trusting
from tests.verify.connection import LocalConnection
from tests.verify.fleet import Planned

Issued = Callable[[str], tuple[str, str]]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@pytest.fixture(scope="module")
def issued() -> Issued:
    """What an authority of the operator's own issues for a name: certificate with chain, and key, as PEM."""
    authority, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)

    def certificate(subject: str, key: ec.EllipticCurvePrivateKey) -> str:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=9))
            .add_extension(x509.BasicConstraints(subject == "authority", None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
            .sign(authority, hashes.SHA256())
            .public_bytes(Encoding.PEM)
            .decode()
        )

    def issue(name: str) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return certificate(name, key) + certificate("authority", authority), pem

    return issue


@contextmanager
def showing(pair: tuple[str, str], folder: Path) -> Iterator[str]:
    """URL of a server that shows this certificate."""
    for name, text in zip(("certificate.pem", "key.pem"), pair, strict=True):
        (folder / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_certificate_of_the_operators_own_authority_is_trusted_and_no_other_of_it(
    issued: Issued, tmp_path: Path
) -> None:
    given = issued("gpu-1.corp")
    with showing(given, tmp_path) as url:
        assert httpx.get(url, verify=trusting(given[0]), trust_env=False).status_code == 501
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(url, verify=trusting(issued("gpu-1.corp")[0]), trust_env=False)


@pytest.mark.parametrize(
    ("listen", "asked"), [("0.0.0.0", "10.44.0.11"), ("::", "fd00::2"), ("10.44.0.0/24", "10.44.0.11")]
)
def test_a_front_on_all_addresses_is_asked_by_one_of_the_hosts(listen: str, asked: str) -> None:
    text = probes.with_block(probes.answer(probes.BARE), "addresses", "eth0 10.44.0.11/24", "eth0 fd00::2/64")
    wanted = {
        "serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}},
        "access": {"listen": listen, "api_key_env": "KEY"},
    }
    probe = parse(text)
    (service,) = plan_host("gpu-1", settings.read([wanted]), probe).services
    assert asked_at(service, probe) == asked


@pytest.mark.parametrize(
    ("network", "opened"), [("127.0.0.0/8", {"/health", "/metrics"}), ("10.0.0.0/8", set())]
)
def test_what_a_front_opens_to_some_is_judged_by_the_address_of_who_checks(
    network: str, opened: set[str]
) -> None:
    lists = {"monitoring": [network], "clients": [network]}
    wanted = {
        "serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}},
        "access": {"listen": "10.44.0.0/24", "api_key_env": "KEY"} | lists,
    }
    probe = parse(probes.answer(probes.BARE))
    plan = plan_host("gpu-1", settings.read([wanted]), probe)
    here = testinfra.host.Host(LocalConnection(cast("Host", SimpleNamespace(name="here"))))
    service = dataclasses.replace(plan.services[0], address="127.0.0.1")
    planned = Planned(here, probe, plan, None)
    assert monitored(service, planned) == opened
    assert is_shut_out(service, planned) == (not opened)
