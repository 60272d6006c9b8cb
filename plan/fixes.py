"""The smallest changes after which there is a stack: each one is tried, none is guessed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from plan import models
from plan.answer import Decision, Machine, Refusal, Wish
from plan.gpus import Capability
from plan.models import ModelFacts

Decide = Callable[[Machine, Wish, ModelFacts | None], Decision | Refusal]

_MOST_SENTENCES = 3
_MORE_GPUS = (2, 4, 8)
_MOST_UTILIZATION = 0.95
# Ada's and later have fp8 of their own. On older ones it depends on the attention backend whether vLLM starts
# with such a cache (0.32.0, v1/attention/backends/triton_attn.py), which nobody wants to be told to try.
_OWN_FP8 = Capability(8, 9)
# A C library that every wheel of the tables accepts.
NEW_GLIBC = "2.36"


@dataclass(frozen=True)
class Change:
    """One thing that the operator could give way on: the fields of machine and wish that it replaces.

    `sentence` is filled in from the decision it leads to. `cost`: what it costs the operator: 1 a pin, 2 a
    policy, 3 the driver, 5 the system, 20 the context or another build of the model, 30 the engine, 40 some
    of the GPUs, 50 and more: further GPUs.
    """

    cost: int
    sentence: str
    machine: Mapping[str, Any] = field(default_factory=dict)
    wish: Mapping[str, Any] = field(default_factory=dict)


def fixes_for(machine: Machine, wish: Wish, model: ModelFacts | None, decide: Decide) -> tuple[str, ...]:
    """At most three sentences, cheapest first: single changes, or pairs when no single one helps."""
    changes = sorted(_changes(machine, wish, model), key=lambda change: change.cost)
    for size in (1, 2):
        groups = sorted(combinations(changes, size), key=lambda group: sum(c.cost for c in group))
        found = _working(groups, machine, wish, model, decide)
        if found:
            return found
    return ()


def _working(
    groups: list[tuple[Change, ...]], machine: Machine, wish: Wish, model: ModelFacts | None, decide: Decide
) -> tuple[str, ...]:
    found: list[str] = []
    for group in groups:
        changed_machine, changed_wish = machine, wish
        for change in group:
            changed_machine = replace(changed_machine, **change.machine)
            changed_wish = replace(changed_wish, **change.wish)
        facts = model if changed_wish.model == wish.model else None
        answer = decide(changed_machine, changed_wish, facts)
        if isinstance(answer, Decision):
            found.append(" ".join(_sentence(change, answer) for change in group))
        if len(found) == _MOST_SENTENCES:
            break
    return tuple(dict.fromkeys(found))


def _sentence(change: Change, answer: Decision) -> str:
    memory, driver = answer.memory, answer.driver
    return change.sentence.format(
        vllm=answer.vllm,
        torch=answer.torch,
        python=answer.python,
        branch=driver.branch if driver else "",
        modules=driver.modules if driver else "",
        context=memory.max_model_len if memory else "",
        gpus=memory.tensor_parallel * memory.pipeline_parallel if memory else "",
    )


def _changes(machine: Machine, wish: Wish, model: ModelFacts | None) -> Iterator[Change]:
    yield from _pins(wish)
    yield from _memory(machine, wish)
    yield from _host(machine, wish)
    yield from _gpus(machine, wish)
    yield from _models(wish, model)
    if wish.engine == "vllm" and not wish.model and not wish.vllm and machine.gpus:
        yield Change(30, "Serve with Ollama.", wish={"engine": "ollama"})


def _pins(wish: Wish) -> Iterator[Change]:
    if wish.python:
        yield Change(1, "Use Python {python}.", wish={"python": None})
    if wish.vllm:
        yield Change(1, "Use vLLM {vllm}.", wish={"vllm": None})
    if wish.torch:
        yield Change(1, "Use torch {torch}.", wish={"torch": None})
    if wish.dtype:
        yield Change(1, "Let the dtype be decided.", wish={"dtype": None})
    if wish.policy == "native":
        yield Change(2, "Use policy compatible.", wish={"policy": "compatible"})


def _memory(machine: Machine, wish: Wish) -> Iterator[Change]:
    if wish.gpus or wish.tensor_parallel:
        wider = {"gpus": None, "tensor_parallel": None}
        yield Change(1, "Split the model over {gpus} of the host's GPUs: set gpus to {gpus}.", wish=wider)
    if wish.max_model_len:
        yield Change(20, "Set a context of {context} or less.", wish={"max_model_len": None})
    if wish.model is None or wish.engine != "vllm":
        return
    if (wish.gpu_memory_utilization or 0) < _MOST_UTILIZATION:
        sentence = f"Raise gpu_memory_utilization to {_MOST_UTILIZATION}."
        yield Change(21, sentence, wish={"gpu_memory_utilization": _MOST_UTILIZATION})
    if wish.kv_cache_dtype in (None, "auto") and all(gpu.capability >= _OWN_FP8 for gpu in machine.gpus):
        yield Change(22, "Keep the KV cache in fp8 (kv_cache_dtype).", wish={"kv_cache_dtype": "fp8"})


def _host(machine: Machine, wish: Wish) -> Iterator[Change]:
    if machine.gpus and not wish.manage_driver:
        what = "driver branch {branch} with {modules} modules"
        sentence = (
            f"Install {what} on the computer that this container runs on."
            if machine.driver_borrowed
            else f"Let {what} be installed."
        )
        yield Change(3, sentence, wish={"manage_driver": True})
    if machine.glibc or machine.os:
        sentence = f"Use a system with glibc {NEW_GLIBC} or newer (Ubuntu 24.04, Debian 12)."
        yield Change(5, sentence, machine={"os": None, "glibc": NEW_GLIBC})


def _gpus(machine: Machine, wish: Wish) -> Iterator[Change]:
    kinds = list(dict.fromkeys(machine.gpus))
    if any(gpu.mig for gpu in kinds):
        whole = tuple(replace(gpu, mig=False) for gpu in machine.gpus)
        yield Change(3, "Switch MIG off (nvidia-smi -mig 0).", machine={"gpus": whole})
    if len(kinds) > 1:
        for gpu in sorted(kinds, key=lambda card: card.capability, reverse=True):
            alone = tuple(card for card in machine.gpus if card == gpu)
            yield Change(40, f"Use the {gpu.name} alone.", machine={"gpus": alone})
    if wish.model and len(kinds) == 1:
        for count in _MORE_GPUS:
            if count > len(machine.gpus):
                more = {"gpus": machine.gpus[:1] * count}
                without = ", and leave `gpus` out" if wish.gpus else ""
                yield Change(50 + count, f"Use {count} x {kinds[0].name}{without}.", more, {"gpus": None})


def _models(wish: Wish, model: ModelFacts | None) -> Iterator[Change]:
    known = models.lookup(wish.model) if wish.model else None
    if wish.engine != "vllm" or known is None or known.quantization or model:
        return
    for suffix in ("-AWQ", "-FP8", "-GPTQ-Int4"):
        sibling = models.lookup(known.id + suffix)
        if sibling:
            yield Change(23, f"Choose {sibling.id}.", wish={"model": sibling.id})
