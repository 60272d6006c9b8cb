"""Which hosts exchange a model over their LAN, and who of them pulls it from outside."""

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from plan.host import HostPlan
from plan.model_plan import ModelPlan
from plan.probe import Probe

# Two ports, the meeting point's and BitTorrent's; below the ports that Linux gives out by itself.
FIRST_PORT, PORT_PAIRS = 20_000, 4_000


@dataclass(frozen=True)
class Exchange:
    """One host's part in the exchange of one model; addresses are IPv4 texts of one network.

    Attributes:
        me: the host's own address.
        seeds: who pulls from outside; the first is the meeting point.
        peers: every host that shall have the model: nobody else is let in.
        expected: those that lack it.
        port: the meeting point's; BitTorrent has the next.
        firewall: a file that is there while the ports are guarded.
    """

    me: str
    seeds: tuple[str, ...]
    peers: tuple[str, ...]
    expected: tuple[str, ...]
    port: int
    firewall: str

    @property
    def json(self) -> str:
        """For the download program."""
        return json.dumps(asdict(self))


def exchange(host: str, model: ModelPlan, fleet: Iterable[tuple[HostPlan, Probe]]) -> Exchange | None:
    """A host's part in the exchange of a model; None when it has nobody to exchange with."""
    wanting = {plan.host: (plan, probe) for plan, probe in fleet if model in plan.models}
    if host not in wanting or wanting[host][0].downloads.seeds == 0:
        return None
    downloads = wanting[host][0].downloads
    interfaces = {name: list(_interfaces(probe)) for name, (_, probe) in wanting.items()}
    for mine in interfaces[host]:
        network = ipaddress.IPv4Network(downloads.network) if downloads.network else mine.network
        if mine.ip not in network:
            continue
        addresses = _addresses(interfaces, network)
        lacking = [name for name in sorted(addresses) if not model.there(wanting[name][1])]
        if addresses.get(host) == str(mine.ip) and host in lacking and len(lacking) > 1:
            port = FIRST_PORT + 2 * (int(hashlib.sha256(model.slug.encode()).hexdigest(), 16) % PORT_PAIRS)
            expected = tuple(addresses[name] for name in lacking)
            return Exchange(
                me=addresses[host],
                seeds=expected[: downloads.seeds],
                peers=tuple(addresses[name] for name in sorted(addresses)),
                expected=expected,
                port=port,
                firewall=f"/run/bringup/exchange-{port}",
            )
    return None


def _interfaces(probe: Probe) -> Iterator[ipaddress.IPv4Interface]:
    """The host's addresses that only a LAN knows."""
    for text in probe.networks:
        interface = ipaddress.ip_interface(text)
        if isinstance(interface, ipaddress.IPv4Interface) and interface.is_private:
            yield interface


def _addresses(
    interfaces: Mapping[str, Iterable[ipaddress.IPv4Interface]], network: ipaddress.IPv4Network
) -> dict[str, str]:
    """Host -> its address in a network; an address that two hosts claim is nobody's."""
    found = {
        name: next((str(each.ip) for each in own if each.ip in network), "")
        for name, own in interfaces.items()
    }
    claims = list(found.values())
    return {name: address for name, address in found.items() if address and claims.count(address) == 1}
