"""How a model writes calls of tools and its thoughts, by its family."""

import re
from collections.abc import Iterator
from typing import Any

from packaging.version import Version

from plan import tables
from plan.errors import PlanError
from plan.sections import Service


def flags(name: str, service: Service, vllm: str | None) -> dict[str, Any]:
    """The `vllm serve` flags, in vLLM's spelling, that a service's `tools` and `reasoning` entail.

    Args:
        name: of the service.
        service: its settings; a parser among its own flags counts more than the family's.
        vllm: the planned version.

    Raises:
        PlanError: the family has no such parser, or this vLLM does not have it yet.
    """
    found: dict[str, Any] = {}
    if service.tools:
        found["enable-auto-tool-choice"] = True
    for setting, flag in (("tools", "tool-call-parser"), ("reasoning", "reasoning-parser")):
        if getattr(service, setting) and flag not in service.own_flags:
            problems = list(_problems(name, service.model, setting, flag, vllm))
            if problems:
                raise PlanError(problems)
            found[flag] = family(service.model)[setting]
    return found


def family(model: str) -> dict[str, str]:
    """The row of a model's family; empty when no row fits."""
    rows: list[dict[str, str]] = tables.read("parsers")["family"]
    return next((row for row in rows if re.match(row["models"], model.lower())), {})


def _problems(name: str, model: str, setting: str, flag: str, vllm: str | None) -> Iterator[str]:
    row = family(model)
    if setting not in row:
        yield (
            f"serve.{name}.{setting}: no parser is known for {model}. Leave it out, or set `{flag}` in "
            f"serve.{name}.flags."
        )
    elif vllm and Version(vllm) < Version(row[f"{setting}_since"]):
        yield (
            f"serve.{name}.{setting}: the parser {row[setting]} is in vLLM from "
            f"{row[f'{setting}_since']} on, and {vllm} is planned. Leave it out, or set serve.{name}.vllm."
        )
