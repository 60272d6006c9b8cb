"""The smallest changes of a wish after which there is a stack: each is tried, not guessed."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from plan.answer import Decision, Machine, Refusal, Wish
from plan.models import ModelFacts

Decide = Callable[[Machine, Wish], Decision | Refusal]


def fixes_for(machine: Machine, wish: Wish, model: ModelFacts | None, decide: Decide) -> tuple[str, ...]:
    """At most three sentences, cheapest change first."""
    found: list[str] = []
    for sentence, changed_machine, changed_wish in _changes(machine, wish):
        answer = decide(changed_machine, changed_wish)
        if isinstance(answer, Decision):
            found.append(sentence.format(vllm=answer.vllm, python=answer.python, torch=answer.torch))
        if len(found) == 3:
            break
    return tuple(found)


def _changes(machine: Machine, wish: Wish) -> Iterator[tuple[str, Machine, Wish]]:
    if wish.python:
        yield "Use Python {python} instead.", machine, replace(wish, python=None)
    if wish.vllm:
        yield "Use vLLM {vllm} instead.", machine, replace(wish, vllm=None)
    if wish.torch:
        yield "Use torch {torch} instead.", machine, replace(wish, torch=None)
    if wish.policy == "native":
        yield "Use policy compatible.", machine, replace(wish, policy="compatible")
    if machine.driver and not wish.manage_driver:
        yield "Let the driver be managed.", machine, replace(wish, manage_driver=True)
