"""Settings that cannot hold together with Ollama, or that only Ollama has a use for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plan.sections import Service, Settings

# [[registry/]namespace/]model[:tag], as Ollama reads it: a namespace has no dots.
TAG = re.compile(
    r"(([A-Za-z0-9.-]+/)?[A-Za-z0-9_-]{1,80}/)?[A-Za-z0-9._-]{1,80}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,79})?"
)
# Settings of a service that Ollama has no use for: saying so is better than silence.
OF_VLLM = (
    "mode",
    "batch",
    "revision",
    "served_name",
    "gpu_memory_utilization",
    "dtype",
    "kv_cache_dtype",
    "vllm",
    "tools",
    "reasoning",
    "chat_template",
    "lora",
    "max_loras",
    "max_lora_rank",
    "flags",
    "extra_args",
)
# What ProtectHome and PrivateTmp hide from services, and what belongs to the system.
HIDDEN = tuple(
    f"{folder}/"
    for folder in (
        *(
            "/bin",
            "/boot",
            "/dev",
            "/etc",
            "/home",
            "/lib",
            "/lib64",
            "/opt/bringup",
            "/proc",
            "/root",
            "/run",
        ),
        *("/sbin", "/sys", "/tmp", "/usr", "/var/tmp"),
    )
)
QUANTISED_CACHES = ("q8_0", "q4_0")


def contradictions(settings: Settings) -> Iterator[str]:
    """One sentence (setting, fact, fix) for each."""
    for name, service in settings.serve.items():
        if service.engine == "ollama":
            yield from _of_a_service(name, service)
        elif "ollama" in service.model_fields_set:
            yield f"serve.{name}.ollama: is for Ollama, and the engine is {service.engine}. Leave it out."
    engines = {service.engine for service in settings.serve.values()}
    if settings.ollama.models and "ollama" not in engines:
        yield "ollama.models: no service here is Ollama's. Set `engine: ollama` for one, or leave it out."
    yield from _no_store(settings.ollama.store)
    for tag in settings.ollama.models:
        yield from _no_tag("ollama.models", tag)


def _of_a_service(name: str, service: Service) -> Iterator[str]:
    if service.model:
        yield from _no_tag(f"serve.{name}.model", service.model)
    for setting in OF_VLLM:
        if setting in service.model_fields_set:
            yield f"serve.{name}.{setting}: is for vLLM, and the engine is ollama. Leave it out."
    server = service.ollama
    if server.kv_cache_type in QUANTISED_CACHES and server.flash_attention is False:
        yield (
            f"serve.{name}.ollama.kv_cache_type: {server.kv_cache_type} needs flash attention, which is "
            f"switched off. Leave serve.{name}.ollama.flash_attention out, or use 'f16'."
        )


def _no_store(store: str) -> Iterator[str]:
    """Directories that a service does not see, or that others own."""
    if store.startswith(HIDDEN) or (store.startswith("/srv/models/") and store != "/srv/models/ollama"):
        yield f"ollama.store: {store} is no place for models. Use a data disk's, as in '/data/ollama'."


def _no_tag(setting: str, tag: str) -> Iterator[str]:
    if not TAG.fullmatch(tag):
        yield (
            f"{setting}: {tag!r} is no name that Ollama pulls. Write it as in 'qwen2.5:7b' or "
            "'modelscope.cn/Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M'."
        )
