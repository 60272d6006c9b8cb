"""The operator's own flags: words are read as vLLM reads them, and what the plan decides stays decided."""

from typing import Any

import pytest

from plan import operator_flags, settings
from plan.errors import SettingsError
from plan.operator_flags import RESERVED, parse
from plan.sections import Service
from tests.plan.test_services import service

MODEL = "Qwen/Qwen2.5-7B-Instruct"


def refusal(**wish: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        settings.read([{"serve": {"chat": {"model": MODEL} | wish}}])
    (sentence,) = refused.value.sentences
    return sentence


def test_words_are_read_as_vllm_reads_them() -> None:
    words = ["--max-num-seqs", "64", "--seed=-1", "--enforce-eager", "--no-enable-prefix-caching"]
    words += ["--allowed-origins", "https://a", "https://b", "--max_num_batched_tokens", "8k"]
    words += ["--hf-overrides.rope_scaling.factor", "2.0", "--swap-space", "0", "--lm-head=01"]
    assert parse(words) == {
        "max-num-seqs": 64,
        "seed": -1,
        "enforce-eager": True,
        "enable-prefix-caching": False,
        "allowed-origins": ("https://a", "https://b"),
        "max-num-batched-tokens": "8k",
        "hf-overrides.rope_scaling.factor": "2.0",
        "swap-space": 0,
        "lm-head": "01",
    }


def test_what_was_read_is_written_as_the_same_words() -> None:
    words = ["--a-b", "64", "--c", "--no-d", "--e", "x", "y z", "--f.g_h", '{"i": 1}']
    assert list(operator_flags.words(parse(words))) == words


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["64"], "'64' belongs to no flag. Write a flag before it, as in '--seed'."),
        (["--a", "1", "--a", "2"], "--a is there twice. Write it once."),
        (["--no-a", "1"], "'1' belongs to no flag. Write a flag before it, as in '--seed'."),
        (["--no-a=1"], "'--no-a=1' switches off and has a value. Leave one of them out."),
        (["-tp", "2"], "'-tp' is no flag. Write it in its long form, as in '--seed'."),
        (["--seed 1"], "'--seed 1' is no flag. Write flag and value as two items."),
    ],
)
def test_words_that_are_no_flags_are_refused(words: list[str], sentence: str) -> None:
    assert refusal(extra_args=words) == f"serve.chat.extra_args: {sentence}"


@pytest.mark.parametrize(("flag", "fix"), RESERVED.items())
def test_what_the_plan_decides_is_refused_with_the_setting_to_use(flag: str, fix: str) -> None:
    assert refusal(flags={flag: 1}) == f"serve.chat.flags.{flag}: is not yours to set here. {fix}"
    assert refusal(extra_args=[f"--{flag}=1"]) == (
        f"serve.chat.extra_args: --{flag} is not yours to set here. {fix}"
    )


@pytest.mark.parametrize("word", ["--no-enable-lora", "--enable-lor", "--served_model=x", "--serv"])
def test_no_spelling_of_it_gets_through(word: str) -> None:
    assert "is not yours to set here" in refusal(extra_args=[word])


def test_a_flag_stands_in_one_place() -> None:
    assert refusal(flags={"seed": 1}, extra_args=["--seed", "2"]) == (
        "serve.chat.extra_args: --seed is in `flags` too. Write it once."
    )


@pytest.mark.parametrize("word", ["$HOME", "--a=$(id)", "a\nb", "back\\slash", "`id`", ""])
def test_signs_that_a_unit_cannot_hold_are_refused(word: str) -> None:
    assert refusal(extra_args=["--seed", word]).startswith("serve.chat.extra_args.1: ")


def test_both_forms_are_one_to_the_plan() -> None:
    listed = service(extra_args=["--kv-cache-memory-bytes", "2147483648", "--enforce-eager"])
    assert listed == service(flags={"kv-cache-memory-bytes": 2**31, "enforce-eager": True})
    assert listed.flags["kv-cache-memory-bytes"] == 2**31


def test_the_installed_vllm_is_asked_about_flags_that_the_plan_does_not_write_itself() -> None:
    assert service().unproven == ()
    assert service(flags={"kv-cache-memory-bytes": 2**31}, extra_args=["--seed", "1"]).unproven == ("seed",)


def test_an_own_parser_in_words_counts_more_than_the_familys() -> None:
    own = Service.model_validate({"model": MODEL, "tools": True, "extra_args": ["--tool-call-parser", "x"]})
    assert own.own_flags == {"tool-call-parser": "x"}
