"""The services of one host: address, port, flags and variables of each."""

import ipaddress
from collections.abc import Iterator, Mapping

from plan import sources
from plan.answer import Decision
from plan.errors import PlanError
from plan.host import BYTECODE, OLLAMA_STORE, ModelPlan, ServicePlan, TagPlan
from plan.probe import Probe
from plan.sections import Service, Settings

FIRST_PORT = 8000
# A model's start: imports and compiling, then reading weights at a slow disk's 85 MB/s. Bounds the wait only.
START_SECONDS, START_SECONDS_PER_GIB = 600, 12


def plan_services(
    settings: Settings, services: Mapping[str, Service], decisions: Mapping[str, Decision], probe: Probe
) -> Iterator[ServicePlan]:
    """The plan of every service that shall be there, in order of names.

    Raises:
        PlanError: the host has no address in the network to listen on.
    """
    taken = {service.port for service in services.values() if service.port}
    endpoint = sources.models_endpoint(settings.sources)
    for name, service in sorted(services.items()):
        port = service.port or next(port for port in range(FIRST_PORT, 65536) if port not in taken)
        taken.add(port)
        decision = decisions[name]
        address = _address(settings.access.listen, probe)
        ollama = service.engine == "ollama"
        weights_gib = decision.memory.weights_gib if decision.memory else 0.0
        yield ServicePlan(
            name=name,
            engine=service.engine,
            model=(TagPlan if ollama else ModelPlan)(service.model, service.revision, endpoint),
            served_name=service.served_name or service.model,
            listen=settings.access.listen,
            address=address,
            port=port,
            flags=_flags(decision, service),
            environment=(_ollama_variables if ollama else _variables)(name, decision),
            start_timeout_seconds=START_SECONDS + int(weights_gib * START_SECONDS_PER_GIB),
            needs_key=not ipaddress.ip_address(address).is_loopback,
        )


def _flags(decision: Decision, service: Service) -> dict[str, object]:
    """The decided flags, then the operator's, which win; all in vLLM's spelling with dashes."""
    decided = {name.replace("_", "-"): value for name, value in decision.flags.items()}
    return decided | service.flags


def _variables(name: str, decision: Decision) -> dict[str, str]:
    cache = f"/var/cache/bringup/vllm-{name}"
    variables = {
        "HOME": cache,
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        "PYTHONPYCACHEPREFIX": BYTECODE,
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        **decision.environment,
    }
    if decision.accelerator == "cpu":
        # gloo would bind to the first address that it finds
        variables["VLLM_HOST_IP"] = "127.0.0.1"
    return variables


def _ollama_variables(name: str, decision: Decision) -> dict[str, str]:
    return {
        # its key pair, which it makes at its first start
        "HOME": f"/var/cache/bringup/ollama-{name}",
        "OLLAMA_MODELS": OLLAMA_STORE,
        # one model, in memory from the first answer on, as with vLLM
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_LOAD_TIMEOUT": "30m",
        # a start would delete what another server of the host is just pulling
        "OLLAMA_NOPRUNE": "1",
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
