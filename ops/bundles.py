"""Where this run's hosts find the bundle: in a place of their own, or at the host that serves it."""

import socket

from pyinfra.api.host import Host

from plan import bundled
from plan.bundle_plan import BundleServer
from plan.errors import PlanError
from plan.probe import Probe
from plan.sections import Settings


def place_for(host: Host, wanted: Settings) -> str | None:
    """The bundle's place for a host, as `BundlePlan.place`; None without a bundle.

    Raises:
        PlanError: the host that shall serve it is none of the inventory, or has no address.
    """
    serving = wanted.bundle.serve_from
    if serving is None or wanted.bundle.state == "absent" or serving == host.name:
        return wanted.sources.bundle
    return f"http://{_address(host, serving)}:{wanted.bundle.port}"


def server_on(host: Host, wanted: Settings, probe: Probe) -> BundleServer | None:
    """What this host serves of the bundle; None on the others.

    Raises:
        PlanError: it cannot.
    """
    if wanted.bundle.serve_from != host.name or wanted.bundle.state == "absent":
        return None
    clients = [_address(host, other.name) for other in host.inventory]
    return bundled.server(wanted, host.name, _address(host, host.name), clients, probe)


def _address(host: Host, name: str) -> str:
    """The IPv4 address at which a host of the inventory is reached."""
    other = host.inventory.get_host(name)
    if other is None:
        raise PlanError([f"bundle.serve_from: {name} is no host of this inventory. Correct the name."])
    reached = str(other.data.get("ssh_hostname") or name)
    try:
        return socket.gethostbyname(reached)
    except OSError as error:
        raise PlanError([f"bundle.serve_from: {reached}: {error}. Set its ssh_hostname."]) from None
