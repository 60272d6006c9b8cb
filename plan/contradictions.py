"""Settings that are right one by one, and cannot hold together or with their engine."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from plan import batch_settings, ollama_settings, operator_flags
from plan.models_host import adapter_of
from plan.probe import plain_name

if TYPE_CHECKING:
    from plan.sections import Driver, Service, Settings

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def contradictions(settings: Settings) -> Iterator[str]:
    """One sentence (setting, fact, fix) for each."""
    seen: dict[int, str] = {}
    for name, service in settings.serve.items():
        if service.state == "present" and not service.model:
            yield f"serve.{name}.model: is missing. Set it, for example 'Qwen/Qwen2.5-7B-Instruct'."
        elif service.model and service.engine == "vllm" and not HUB_ID.fullmatch(service.model):
            example = f"Qwen/{service.model.partition(':')[0].rpartition('/')[2]}"
            yield (
                f"serve.{name}.model: {service.model!r} is not a hub id. Write it as organisation/name, "
                f"for example {example}, or set `engine: ollama`."
            )
        yield from operator_flags.problems(name, service)
        tensor = service.flags.get("tensor-parallel-size")
        if service.gpus and isinstance(tensor, int) and service.gpus % max(tensor, 1):
            yield (
                f"serve.{name}.gpus: {service.gpus} is no multiple of {tensor}, which flags has for "
                "tensor-parallel-size. Leave one of them out."
            )
        yield from _adapters(name, service)
        if service.port and service.port in seen:
            yield f"serve.{name}.port: {service.port} is serve.{seen[service.port]}'s too. Choose another."
        if service.port:
            seen[service.port] = name
    names = [plain_name(pin) for pin in settings.environment.packages]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"environment.packages: {name} is there twice. Leave one out."
    yield from ollama_settings.contradictions(settings)
    yield from batch_settings.contradictions(settings)
    yield from _needed_and_absent(settings)
    yield from _driver(settings.driver)
    sources = settings.sources
    if sources.ollama_sha256 and not sources.ollama_version:
        yield "sources.ollama_sha256: belongs to a version that is not named. Set sources.ollama_version."
    yield from _reach(settings)


def _adapters(name: str, service: Service) -> Iterator[str]:
    """LoRA adapters that clients could not tell from the model, and settings of none."""
    if (service.served_name or service.model) in service.lora:
        yield f"serve.{name}.lora: an adapter has the model's own name. Choose another."
    for setting in ("max_loras", "max_lora_rank"):
        if not service.lora and setting in service.model_fields_set and service.engine == "vllm":
            yield f"serve.{name}.{setting}: is for adapters, and there are none. Set serve.{name}.lora too."


def _reach(settings: Settings) -> Iterator[str]:
    """Services that more than this host may reach, without what keeps others out."""
    access = settings.access
    try:
        if "%" in access.listen:
            raise ValueError("an address with a zone means another thing on each host")
        exposed = not ipaddress.ip_network(access.listen, strict=False).is_loopback
    except ValueError:
        yield f"access.listen: {access.listen!r} is no address or network. Write one such as '10.1.0.0/16'."
        return
    served = any(
        service.state == "present" and service.mode == "serve" for service in settings.serve.values()
    )
    if exposed and served and not (access.api_key_file or access.api_key_env):
        yield (
            f"access.listen: {access.listen} is not loopback and there is no key. "
            "Set access.api_key_file or access.api_key_env."
        )
    if bool(access.certificate_file) != bool(access.certificate_key_file):
        yield "access.certificate_file: goes with certificate_key_file. Set both, or neither."
    if access.certificate_file and access.tls == "off":
        yield "access.certificate_file: is of no use without TLS. Leave out `tls: off`."
    for setting, network in [("clients", net) for net in access.clients] + [
        ("monitoring", net) for net in access.monitoring
    ]:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            yield f"access.{setting}: {network!r} is no address or network. Write one such as '10.1.0.9'."


def _driver(driver: Driver) -> Iterator[str]:
    """A release of another branch; addresses that are none."""
    if driver.version and driver.branch and driver.version.partition(".")[0] != str(driver.branch):
        yield (
            f"driver.version: {driver.version} is not of branch {driver.branch}. Leave driver.branch out, or "
            "set both alike."
        )
    for address in driver.imex_nodes:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            yield f"driver.imex_nodes: {address!r} is no address. Write one such as '10.1.0.11'."


def _needed_and_absent(settings: Settings) -> Iterator[str]:
    """What a service that shall be present needs, and another setting takes away."""
    for name, service in settings.serve.items():
        if service.state == "absent":
            continue
        if service.engine == "vllm" and settings.environment.state == "absent":
            yield f"environment.state: is absent, and serve.{name} lives in it. Set that to absent too."
        if settings.driver.managed and settings.driver.state == "absent":
            yield (
                f"driver.state: is absent, and serve.{name} needs it. Set that to absent too, or leave "
                "driver.state out."
            )
        needed = [(service.model, service.revision), *map(adapter_of, service.lora.values())]
        for model, revision in needed:
            download = settings.models.downloads.get(model)
            if download and download.state == "absent" and download.revision == revision:
                yield f"models.{model}.state: is absent, and serve.{name} serves it. Set both alike."
