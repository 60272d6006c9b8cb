"""The services of one host: address, port, flags and variables of each."""

import dataclasses
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import TypedDict

from packaging.version import Version

from plan import adapters, chat_template, ollama_service, parsers, replacing, start
from plan.answer import Decision
from plan.errors import PlanError
from plan.host import BYTECODE, EnvironmentPlan, ServicePlan
from plan.models_host import Pins, model_plan
from plan.probe import Probe
from plan.seats import Seats
from plan.sections import Service, Settings

FIRST_PORT = 8000
# Where the engines listen behind the front, on loopback.
FIRST_INNER_PORT = 18000
# From each of the two on.
DEALT_PORTS = 1000
# How long a server that is asked to stop goes on answering what it has begun.
DRAIN_SECONDS, DRAINS_FROM = 30, Version("0.18.0")


def plan_services(
    settings: Settings,
    services: Mapping[str, Service],
    decisions: Mapping[str, Decision],
    seats: Seats,
    probe: Probe,
    pins: Pins,
) -> Iterator[ServicePlan]:
    """The plan of every service that shall be there, in order of names.

    Raises:
        PlanError: the host has no address in the network to listen on.
    """
    others = set(_held_by_others(probe))
    address = _address(settings.access.listen, probe) if services else "127.0.0.1"
    fronted = not ipaddress.ip_address(address).is_loopback
    ports = _ports(services, _client_ports(services, others, probe))
    taken = {*ports.values(), *others}
    seconds = _free(replacing.FIRST_PORT, taken)
    inner_ports = _inner_ports(services, taken, probe)
    for name, service in sorted(services.items()):
        reach = Reach(
            listen=settings.access.listen,
            address=address,
            port=ports[name],
            inner_address="127.0.0.1" if fronted else address,
            inner_port=inner_ports[name] if fronted else ports[name],
            fronted=fronted,
            tls=fronted and settings.access.tls == "on",
        )
        planned = plan_service(name, service, decisions[name], settings, seats, probe, pins, reach)
        way = replacing.decide(name, seats, decisions[name], probe, fronted, next(seconds))
        yield dataclasses.replace(planned, replacing=way)


class Reach(TypedDict):
    """Where a service answers: the fields of its plan."""

    listen: str
    address: str
    port: int
    inner_address: str
    inner_port: int
    fronted: bool
    tls: bool


def plan_service(
    name: str,
    service: Service,
    decision: Decision,
    settings: Settings,
    seats: Seats,
    probe: Probe,
    pins: Pins,
    reach: Reach,
) -> ServicePlan:
    """The plan of one service, or of the vLLM of a batch."""
    ollama = service.engine == "ollama"
    weights_gib = decision.memory.weights_gib if decision.memory else None
    model = (
        ollama_service.model(name, service, settings, pins)
        if ollama
        else model_plan(service.model, service.revision, settings, pins)
    )
    lora = tuple(adapters.planned(service, settings, pins))
    template = chat_template.of(name, service.chat_template, model.directory)
    return ServicePlan(
        name=name,
        memory=decision.memory,
        engine=service.engine,
        model=model,
        served_name=service.served_name or service.model,
        flags={
            **_decided(decision),
            **parsers.flags(name, service, decision.vllm),
            **adapters.flags(service, lora),
            **({"chat-template": template.path} if template else {}),
            **service.own_flags,
        },
        unproven=tuple(sorted(set(service.own_flags) - set(_decided(decision)))),
        adapters=lora,
        chat_template=template,
        environment=(
            ollama_service.variables(name, service.ollama, decision, settings.ollama.store)
            if ollama
            else _variables(name, decision)
        )
        | seats.variables(name),
        start_timeout_seconds=start.timeout_seconds(weights_gib, probe),
        stop_timeout_seconds=DRAIN_SECONDS,
        **reach,
    )


def compilers(manager: str, environment: EnvironmentPlan | None, stack: Decision) -> Iterator[str]:
    """On a GPU, kernels are made while vLLM starts: Triton calls the system's compiler for that."""
    if environment and environment.pins["vllm"] and stack.accelerator == "cuda":
        # each brings C, and the C library's headers
        yield {"apt": "g++", "dnf": "gcc-c++"}[manager]


def _ports(services: Mapping[str, Service], seen: Mapping[str, int]) -> dict[str, int]:
    """The port of every service: as set, or as it has, or the next that is free, in order of names.

    Args:
        services: by name.
        seen: the ports that clients' services have now.
    """
    wanted = {name: service.port for name, service in sorted(services.items())}
    set_ones = {port for port in wanted.values() if port}
    kept = {name: port for name, port in seen.items() if port not in set_ones}
    free = _free(FIRST_PORT, {*set_ones, *kept.values()})
    return {name: port or kept.get(name) or next(free) for name, port in wanted.items()}


def _client_ports(services: Mapping[str, Service], others: set[int], probe: Probe) -> dict[str, int]:
    """The ports on which clients reach services now: by the front's configuration, else by the unit files.

    Who asks for a model on its port must not get another one's answer because that sorts before it.
    """
    dealt = range(FIRST_PORT, FIRST_PORT + DEALT_PORTS)
    front = {name: port for name, port in probe.gateway.clients.items() if name in services and port in dealt}
    return dict(_kept(services, FIRST_PORT, {*others, *front.values()}, probe)) | front


def _inner_ports(services: Mapping[str, Service], taken: set[int], probe: Probe) -> dict[str, int]:
    """Where each engine listens behind the front: as it does, or a port that no service of ours has."""
    kept = dict(_kept(services, FIRST_INNER_PORT, taken, probe))
    free = _free(FIRST_INNER_PORT, {*taken, *probe.unit_ports})
    return {name: kept.get(name) or next(free) for name in sorted(services)}


def _kept(
    services: Mapping[str, Service], first: int, taken: set[int], probe: Probe
) -> Iterator[tuple[str, int]]:
    """The ports that services have by their unit files, of those that are dealt out from `first` on.

    A new service must not take the port of one that serves; which would then have to go first.
    """
    for port, unit in probe.unit_ports.items():
        engine, _, name = unit.removesuffix(".service").partition("-")
        known = name in services and services[name].engine == engine
        if known and port not in taken and first <= port < first + DEALT_PORTS:
            yield name, port


def _held_by_others(probe: Probe) -> Iterator[int]:
    """Ports on which a process listens that is known, and is no service of ours."""
    ours = {f"(pid {unit.main_pid})" for unit in probe.units.values()}
    for port, holder in probe.listening.items():
        if holder != "?" and not any(pid in holder for pid in ours):
            yield port


def _free(first: int, taken: Iterable[int]) -> Iterator[int]:
    """Ports from `first` on that are not taken."""
    held = set(taken)
    return (port for port in range(first, 65536) if port not in held)


def _decided(decision: Decision) -> dict[str, object]:
    """The decided flags, in vLLM's spelling with dashes; the operator's come after them, and win."""
    decided = {name.replace("_", "-"): value for name, value in decision.flags.items()}
    if decision.vllm and Version(decision.vllm) >= DRAINS_FROM:
        decided["shutdown-timeout"] = DRAIN_SECONDS
    return decided


def _variables(name: str, decision: Decision) -> dict[str, str]:
    cache = f"/var/cache/bringup/vllm-{name}"
    # a host without a GPU need not have a compiler: vLLM 0.32 would compile when a client asks for logprobs,
    # and fail, and end
    compiles = {} if decision.accelerator == "cuda" else {"TORCH_COMPILE_DISABLE": "1"}
    return {
        **compiles,
        "HOME": cache,
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        "PYTHONPYCACHEPREFIX": BYTECODE,
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        # what the processes of one server say to one another stays on loopback: they would listen on the
        # first address that they find
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOOPBACK_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        **decision.environment,
    }


def _address(listen: str, probe: Probe) -> str:
    """The address to listen on: as written, or the host's own in that network."""
    network = ipaddress.ip_network(listen, strict=False)
    if network.num_addresses == 1:
        return listen.split("/")[0]
    if network.is_loopback:
        return "127.0.0.1"
    own = [address for address in probe.addresses if ipaddress.ip_address(address) in network]
    if not own:
        there = ", ".join(probe.addresses) or "none"
        raise PlanError(
            [
                f"access.listen: none of its addresses ({there}) is in {listen}. "
                "Correct the network, or write one address for this host."
            ]
        )
    return own[0]
