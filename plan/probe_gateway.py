"""What the probe saw of the front: its user, nginx, its own certificate."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class InstalledGateway:
    """The front on a host.

    Attributes:
        user: whether its user is there.
        nginx: whether any nginx is installed; `secure_link`: whether it can check the key.
        certificate: its own certificate as PEM; None when there is none.
        ends_soon: whether that ends within thirty days.
        ports: on which it is configured to listen.
        clients: service -> the port on which it stands before it.
        switches: services that it can be turned away from, to a second server of the same.
        names: what that was made out to, one a line.
        unloaded: whether it goes by files of before, since a run was cut between writing and reloading.
    """

    user: bool = False
    nginx: bool = False
    secure_link: bool = False
    certificate: str | None = None
    ends_soon: bool = False
    names: str = ""
    ports: frozenset[int] = frozenset()
    switches: frozenset[str] = frozenset()
    unloaded: bool = False
    clients: Mapping[str, int] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str | None:
        """sha256 of the certificate, as `openssl x509 -fingerprint -sha256` writes it."""
        return fingerprint(self.certificate) if self.certificate else None


def parse(blocks: Mapping[str, list[str]]) -> InstalledGateway:
    """The front from the probe's blocks; older captures have none."""
    found: dict[str, list[str]] = {}
    for line in blocks.get("gateway", []):
        kind, _, value = line.partition(" ")
        found.setdefault(kind, []).append(value)
    ports = [int(port) for port in found.get("port", ())]
    switches = found.get("switch", [])
    certificate = "".join(f"{line}\n" for line in found.get("certificate", ()))
    return InstalledGateway(
        user="user" in found,
        nginx="nginx" in found,
        secure_link="secure_link" in found,
        certificate=certificate or None,
        ends_soon="ends_soon" in found,
        ports=frozenset(ports),
        switches=frozenset(switches),
        # both as they follow in the configuration; an early one had no switches
        clients=dict(zip(switches, ports, strict=True)) if len(switches) == len(ports) else {},
        unloaded="unloaded" in found,
        names="".join(f"{line}\n" for line in found.get("name", ())),
    )


def fingerprint(pem: str) -> str:
    """sha256 of the first certificate of a PEM text, in pairs of hexadecimal digits."""
    body = pem.split("-----BEGIN CERTIFICATE-----")[1].split("-----END CERTIFICATE-----")[0]
    digest = hashlib.sha256(base64.b64decode(body)).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
