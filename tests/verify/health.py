"""What is wrong with a host whatever role it has: clock, disks, certificates, ports. One sentence each."""

from collections.abc import Iterator

from plan.gateway import UNIT as FRONT
from plan.gateway import GatewayPlan
from plan.host import HostPlan
from plan.probe import Probe
from tests.verify.evidence import Evidence, Listener

# Tokens, certificates and logs of several hosts go wrong well before this.
MOST_SECONDS_OFF = 60
LEAST_FREE_GIB = 1.0
# Half a GiB is what installers give to it; a kernel with its initramfs takes 0.1.
LEAST_FREE_GIB_IN_BOOT = 0.1


def ahead(clock: int | None, began: float, ended: float) -> float:
    """Seconds that a host's clock is ahead of ours: 0 when it may be right."""
    if clock is None or began - 1 <= clock <= ended + 1:
        return 0.0
    return clock - (ended if clock > ended else began)


def clock(ahead_seconds: float) -> Iterator[str]:
    """A clock that is off."""
    if abs(ahead_seconds) > MOST_SECONDS_OFF:
        way = "ahead of" if ahead_seconds > 0 else "behind"
        yield (
            f"its clock is {abs(ahead_seconds) / 60:.0f} minutes {way} this machine's. "
            "Set up time synchronisation (systemd-timesyncd or chrony) there."
        )


def disks(probe: Probe) -> Iterator[str]:
    """File systems that are full, each once."""
    shared = {disk.device for path, disk in probe.disks.items() if path != "/boot"}
    full = {}
    for path, disk in probe.disks.items():
        own_boot = path == "/boot" and disk.device not in shared
        if disk.free_gib < (LEAST_FREE_GIB_IN_BOOT if own_boot else LEAST_FREE_GIB):
            full[disk.device] = path
    for device, path in full.items():
        free = probe.disks[path].free_gib
        yield f"{device} (at {path}) has {free:.2f} GiB free. Make room: caches and logs need it."


def certificates(gateway: GatewayPlan | None, evidence: Evidence) -> Iterator[str]:
    """The certificate that the front's clients see, when it is not valid now."""
    for valid, path, ends in evidence.certificates:
        if gateway and path == gateway.certificate_file and not valid:
            yield f"{path} has expired ({ends}). Deploy again to renew it, or give a new one in the settings."


def strangers(plan: HostPlan, evidence: Evidence) -> Iterator[str]:
    """Who else listens on a planned port, and what of ours listens beyond loopback without being planned."""
    planned = {(service.inner_address, service.inner_port): service.unit for service in plan.services}
    planned |= {(service.address, service.port): FRONT for service in plan.services if service.fronted}
    ports = {port: unit for (_, port), unit in planned.items()}
    for listener in evidence.listeners:
        units = {evidence.ours[pid][1] for pid in listener.pids if pid in evidence.ours}
        holder = _holder(listener, evidence)
        where = f"{listener.address} port {listener.port}"
        if unit := planned.get((listener.address, listener.port)):
            # programs of one user that ask for it share an address, and the kernel deals the requests out
            # among them; vLLM asked for it from 0.7.3 to 0.25 (vllm-project/vllm#47529)
            if listener.pids and not _of(unit, listener, evidence):
                yield f"{holder} listens on {where}, {_effect(unit, evidence)}."
            continue
        if listener.port in ports and ports[listener.port] not in units:
            unit = ports[listener.port]
            yield f"{holder} listens on {where} beside {unit}, which has that port. Stop it."
        elif units and not _loopback(listener.address) and not units & set(planned.values()):
            yield f"{holder} is of ours, is in no plan, and listens on {where}. Stop it."


def taken(plan: HostPlan, evidence: Evidence) -> Iterator[str]:
    """Units that cannot run because another program has their port."""
    for listener in evidence.listeners:
        for service in plan.services:
            at = (service.inner_address, service.inner_port)
            stranger = listener.pids and not _of(service.unit, listener, evidence)
            if (listener.address, listener.port) == at and stranger and not _runs(service.unit, evidence):
                yield service.unit


def _effect(unit: str, evidence: Evidence) -> str:
    if _runs(unit, evidence):
        return f"together with {unit}, and takes its requests. Stop it"
    name = unit.partition("-")[2].removesuffix(".service")
    return f"which service {name} cannot have. Stop it, and deploy again"


def _runs(unit: str, evidence: Evidence) -> bool:
    return evidence.unit(unit).get("ActiveState", "active") == "active"


def _of(unit: str, listener: Listener, evidence: Evidence) -> bool:
    """Whether a process of the unit holds this socket."""
    there = {process.pid for process in evidence.processes(unit)}
    there |= {pid for pid, (_, its) in evidence.ours.items() if its == unit}
    return bool(listener.pids & there)


def _holder(listener: Listener, evidence: Evidence) -> str:
    names = [f"{evidence.ours[pid][0]} (pid {pid})" for pid in listener.pids if pid in evidence.ours]
    return ", ".join(names) or f"another program (pid {', '.join(map(str, sorted(listener.pids))) or '?'})"


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
