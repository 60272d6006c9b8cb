"""Settings of batches that cannot hold together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from plan.ollama_settings import HIDDEN

if TYPE_CHECKING:
    from plan.sections import Service, Settings

DIRECTORY = "/var/lib/bringup/batch"


def output(name: str, service: Service) -> str:
    """Where a batch's answers go on the host."""
    return service.batch.output or f"{DIRECTORY}/{name}/answers.jsonl"


def contradictions(settings: Settings) -> Iterator[str]:
    """One sentence (setting, fact, fix) for each."""
    holders: dict[str, str] = {}
    for name, service in settings.serve.items():
        if service.engine != "vllm" or service.state == "absent":
            continue
        if service.mode == "serve":
            if "batch" in service.model_fields_set:
                yield f"serve.{name}.batch: is for batches. Set `mode: batch`, or leave it out."
            continue
        if service.batch.input is None:
            yield f"serve.{name}.batch.input: is missing. Set it, for example 'operator:~/questions.jsonl'."
        if service.port:
            yield f"serve.{name}.port: a batch answers no clients. Leave it out."
        kept = output(name, service)
        if (service.batch.input or "").removeprefix("host:") == kept:
            yield f"serve.{name}.batch.output: {kept} is its input. Choose another."
        if kept in holders:
            yield f"serve.{name}.batch.output: {kept} is serve.{holders[kept]}'s too. Choose another."
        holders[kept] = name
        for setting, path in (("input", service.batch.input or ""), ("output", service.batch.output or "")):
            if path.removeprefix("host:").startswith(HIDDEN):
                yield (
                    f"serve.{name}.batch.{setting}: services do not see {path.removeprefix('host:')}. "
                    "Use a data disk's directory, as in '/data/batch.jsonl'."
                )
