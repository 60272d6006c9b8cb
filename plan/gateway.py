"""The front of a host's services: who may reach which route of them, and how."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from plan import tables
from plan.errors import PlanError
from plan.probe import Probe
from plan.sections import Settings

UNIT = "bringup-gateway.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
USER = "bringup-gateway"
DIRECTORY = "/etc/bringup/gateway"
CACHE = "/var/cache/bringup/gateway"
# NAME.conf in it turns the front to a second server; gone with the boot, like that server.
SWITCHES = "/run/bringup/front"
# Stands until nginx has loaded what was last written for it; gone with the boot, after which it loads all.
UNLOADED = "/run/bringup/front-unloaded"
# Ubuntu 22.04 builds nginx 1.18 in flavours, of which this one has what the key check needs: what `nginx -V`
# prints of it and of the usual one, of the same build, was published on GitHub; so was that of Ubuntu 24.04,
# which builds it once, with it. Ubuntu 20.04 and Debian 11 have the same packaging of 1.18: unverified.
FLAVOURED = {"ubuntu20.04": "nginx-extras", "ubuntu22.04": "nginx-extras", "debian11": "nginx-extras"}


@dataclass(frozen=True)
class Route:
    """A path that is forwarded; `below`: any name under it is forwarded too."""

    path: str
    method: str
    below: bool = False


@dataclass(frozen=True)
class Front:
    """The front of one service: where it listens, where its engine does, and what it forwards.

    Attributes:
        listen: address and port as nginx writes them.
        upstream: the engine's own, on loopback.
        routes: for clients with the key.
        monitored: path at the front -> path at the engine, for the monitoring addresses.
    """

    name: str
    listen: str
    upstream: str
    routes: tuple[Route, ...]
    monitored: Mapping[str, str]


@dataclass(frozen=True)
class GatewayPlan:
    """The front of a host.

    Attributes:
        packages: what the distribution calls nginx, and openssl.
        certificate: "none" (plain http), "given" by the operator, or "own", signed by itself.
        clients: networks that may connect at all; none: anyone who has the key.
        names: what an own certificate is made out to, as openssl writes them.
        fingerprint: sha256 of the own certificate that is there.
        renew: an own certificate has to be made: there is none, or it ends soon, or is for other names.
    """

    packages: tuple[str, ...]
    fronts: tuple[Front, ...]
    certificate: str
    names: tuple[str, ...]
    clients: tuple[str, ...]
    monitoring: tuple[str, ...]
    max_body_mib: int
    requests_per_second: int
    fingerprint: str | None
    renew: bool

    @property
    def certificate_file(self) -> str:
        """Where the certificate that clients see lies on the host."""
        return f"{DIRECTORY}/{self.certificate}-certificate.pem"

    @property
    def names_file_text(self) -> str:
        """What is written beside an own certificate, so that other names show."""
        return "".join(f"{name}\n" for name in self.names)


@dataclass(frozen=True)
class Exposed:
    """A service that others shall reach, as far as its front cares."""

    name: str
    engine: str
    address: str
    port: int
    inner: str


def plan_gateway(settings: Settings, services: Iterable[Exposed], probe: Probe) -> GatewayPlan | None:
    """The plan of the front; None on a host whose services are its own affair.

    Raises:
        PlanError: the nginx that is there cannot check the key.
    """
    exposed = list(services)
    if not exposed:
        return None
    access = settings.access
    package = FLAVOURED.get(probe.os, "nginx")
    there = probe.gateway
    if there.nginx and not there.secure_link:
        raise PlanError(
            [
                "access.listen: the front needs nginx with its secure_link module, and that of this host "
                f"has none. Install {package} instead, or set access.listen to 127.0.0.1."
            ]
        )
    certificate = "none" if access.tls == "off" else "given" if access.certificate_file else "own"
    names = _names(exposed, probe)
    text = "".join(f"{name}\n" for name in names)
    return GatewayPlan(
        packages=(package, "openssl"),
        fronts=tuple(_front(service) for service in exposed),
        certificate=certificate,
        names=names,
        clients=tuple(access.clients),
        monitoring=tuple(access.monitoring),
        max_body_mib=access.max_body_mib,
        requests_per_second=access.requests_per_second,
        fingerprint=there.fingerprint if certificate == "own" else None,
        renew=certificate == "own" and (there.certificate is None or there.ends_soon or there.names != text),
    )


def _names(services: Iterable[Exposed], probe: Probe) -> tuple[str, ...]:
    """Every address that a client may write, and the host's name."""
    addresses: set[str] = set()
    for service in services:
        anywhere = ipaddress.ip_address(service.address).is_unspecified
        addresses |= set(probe.addresses) if anywhere else {service.address}
    return (f"DNS:{probe.hostname}", *(f"IP:{address}" for address in sorted(addresses)))


def _front(service: Exposed) -> Front:
    literal = f"[{service.address}]" if ":" in service.address else service.address
    return Front(
        name=service.name,
        listen=f"{literal}:{service.port}",
        upstream=service.inner,
        routes=tuple(routes(service.engine)),
        monitored={
            path: inner
            for row in tables.read("gateway")["monitoring"]
            if row["engine"] == service.engine
            for path, inner in row["paths"].items()
        },
    )


def routes(engine: str) -> Iterator[Route]:
    """The routes of an engine that clients with the key may use."""
    for row in tables.read("gateway")["route"]:
        if row["engine"] == engine:
            for path in row["paths"]:
                yield Route(path, row["method"], path in row.get("below", ()))
