"""Parsers that are not known, or not yet there, are said so instead of guessed."""

import pytest

from plan import parsers
from plan.errors import PlanError
from plan.sections import Service

CODER = "Qwen/Qwen2.5-Coder-7B-Instruct"


def refusal(vllm: str, **wish: object) -> str:
    with pytest.raises(PlanError) as refused:
        parsers.flags("chat", Service.model_validate(wish), vllm)
    (sentence,) = refused.value.sentences
    return str(sentence)


def test_a_family_without_a_parser_is_refused() -> None:
    assert refusal("0.19.1", model=CODER, tools=True) == (
        f"serve.chat.tools: no parser is known for {CODER}. Leave it out, or set `tool-call-parser` in "
        "serve.chat.flags."
    )


def test_the_operators_own_parser_counts_more() -> None:
    own = Service.model_validate({"model": CODER, "tools": True, "flags": {"tool-call-parser": "mine"}})
    assert parsers.flags("chat", own, "0.19.1") == {"enable-auto-tool-choice": True}


def test_a_vllm_that_does_not_have_it_yet_is_refused() -> None:
    assert refusal("0.8.4", model="Qwen/Qwen3-8B", reasoning=True) == (
        "serve.chat.reasoning: the parser qwen3 is in vLLM from 0.9.0 on, and 0.8.4 is planned. "
        "Leave it out, or set serve.chat.vllm."
    )
