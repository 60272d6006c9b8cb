"""The `vllm serve` flags that an operator writes: as a table or as words, and which of them are not his."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plan.sections import Service

Value = bool | int | float | str | tuple[str, ...]

NAME = re.compile(r"--(no-)?([a-z][a-z0-9_-]{0,60})((?:\.[A-Za-z0-9_-]{1,60}){0,4})(?:=(.*))?")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")

# Flags that would undo what the plan decides; they come last on the command line, where they would win.
RESERVED = {
    "api-key": "A key on a command line is no secret: set access.api_key_file.",
    "chat-template": "Set `chat_template`.",
    "config": "Write its contents as flags.",
    "data-parallel-size": "Set `gpus`, and serve the model twice to have it twice.",
    "dtype": "Set `dtype`.",
    "enable-lora": "Set `lora`.",
    "gpu-memory-utilization": "Set `gpu_memory_utilization`.",
    "host": "Set access.listen.",
    "kv-cache-dtype": "Set `kv_cache_dtype`.",
    "lora-modules": "Set `lora`.",
    "max-lora-rank": "Set `max_lora_rank`.",
    "max-loras": "Set `max_loras`.",
    "model": "Set `model`.",
    "pipeline-parallel-size": "Set `gpus`: the split over them is planned.",
    "port": "Set `port`.",
    "revision": "Set `revision`.",
    "served-model-name": "Set `served_name`.",
    "ssl-certfile": "Set access.certificate_file.",
    "ssl-keyfile": "Set access.certificate_key_file.",
    "uds": "Set access.listen.",
}


def parse(words: Iterable[str]) -> dict[str, Value]:
    """Flag -> value, from words as they stand on vLLM's command line.

    `--flag value`, `--flag=value`, `--flag a b`, `--switch` and `--no-switch` are understood as vLLM does.

    Raises:
        ValueError: what is wrong with which word, and the fix.
    """
    found: dict[str, Value] = {}
    name, values = "", None
    for word in words:
        if not word.startswith("-") or NUMBER.fullmatch(word):
            if values is None:
                raise ValueError(f"{word!r} belongs to no flag. Write a flag before it, as in '--seed'")
            values.append(word)
            found[name] = tuple(values) if len(values) > 1 else _value(word)
            continue
        name, value, negated = _flag(word)
        if name in found:
            raise ValueError(f"--{name} is there twice. Write it once")
        found[name] = _value(value) if value is not None else not negated
        values = None if negated or value is not None else list[str]()
    return found


def _flag(word: str) -> tuple[str, str | None, bool]:
    """Name in vLLM's spelling with dashes, the value behind `=`, whether it is a `--no-` form."""
    match = NAME.fullmatch(word)
    if match is None:
        fix = (
            "Write flag and value as two items"
            if " " in word
            else "Write it in its long form, as in '--seed'"
        )
        raise ValueError(f"{word!r} is no flag. {fix}")
    negated, name, deeper, value = match.groups()
    if negated and value is not None:
        raise ValueError(f"{word!r} switches off and has a value. Leave one of them out")
    return name.replace("_", "-") + deeper, value, bool(negated)


def _value(text: str) -> Value:
    """Whole numbers count as such, for what the plan makes of them; anything else stays as it is written."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) and str(int(text)) == text else text


def words(flags: Mapping[str, object]) -> Iterator[str]:
    """Flags as words of a command line; False is vLLM's `--no-` form."""
    for name, value in flags.items():
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        elif isinstance(value, tuple | list):
            yield from (f"--{name}", *map(str, value))
        else:
            yield from (f"--{name}", str(value))


def problems(name: str, service: Service) -> Iterator[str]:
    """One sentence (setting, fact, fix) for each flag that a service cannot have from its operator."""
    yield from _reserved(f"serve.{name}.flags.", service.flags)
    try:
        given = parse(service.extra_args)
    except ValueError as error:
        yield f"serve.{name}.extra_args: {error}."
        return
    yield from _reserved(f"serve.{name}.extra_args: --", given)
    for flag in sorted(set(given) & set(service.flags)):
        yield f"serve.{name}.extra_args: --{flag} is in `flags` too. Write it once."


def _reserved(prefix: str, flags: Iterable[str]) -> Iterator[str]:
    """Flags of the plan's; vLLM's parser takes an unambiguous beginning of a flag for the whole."""
    for flag in sorted(flags):
        for reserved, fix in RESERVED.items():
            if reserved.startswith(flag.removeprefix("no-")):
                yield f"{prefix}{flag}{'' if prefix.endswith('--') else ':'} is not yours to set here. {fix}"
                break
