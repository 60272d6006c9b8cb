"""LoRA adapters: downloaded like models, counted in the memory, told to vLLM."""

from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.errors import SettingsError
from plan.host import HostPlan
from plan.memory import GIB
from plan.models_host import Pin
from tests.plan.test_seats import host

MODEL = "Qwen/Qwen2.5-7B-Instruct"
TWO = {"sql": "org/sql-lora@v1", "legal": "org/legal-lora"}


def planned(**wish: Any) -> HostPlan:
    wanted = settings.read([{"serve": {"chat": {"model": MODEL, **wish}}}])
    pins = {
        (f"org/{name}-lora", revision): Pin(digit * 40, "")
        for name, revision, digit in (("sql", "v1", "a"), ("legal", "master", "b"))
    }
    return plan_host("gpu-1", wanted, host(1), pins=pins)


def refusal(**wish: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        planned(**wish)
    (sentence,) = refused.value.sentences
    return sentence


def test_vllm_is_told_each_adapter_by_name_and_pinned_directory() -> None:
    plan = planned(lora=TWO)
    assert {name: value for name, value in plan.services[0].flags.items() if "lora" in name} == {
        "enable-lora": True,
        "max-loras": 2,
        "max-lora-rank": 16,
        "lora-modules": (
            f"legal=/srv/models/org/legal-lora/{'b' * 40}",
            f"sql=/srv/models/org/sql-lora/{'a' * 40}",
        ),
    }
    assert plan.services[0].served_names == (MODEL, "legal", "sql")


def test_adapters_are_models_of_the_host_like_any_other() -> None:
    found = [(model.model, model.revision) for model in planned(lora=TWO).models]
    assert found == [(MODEL, "master"), ("org/legal-lora", "master"), ("org/sql-lora", "v1")]


def test_their_place_is_taken_from_the_cache() -> None:
    def cache_gib(**wish: Any) -> float:
        memory = planned(**wish).services[0].memory
        assert memory
        return memory.kv_gib_per_gpu

    # 28 layers of hidden 3584, MLP 18944, KV 512; rank 16, two bytes; vocabulary 152064
    attention, feed_forward = 3 * 3584 + 3584 + 2 * 512 + 2 * 3584, 3 * (3584 + 18944)
    one = 16 * 2 * (28 * (attention + feed_forward) + 2 * (152064 + 3584)) / GIB
    assert cache_gib() - cache_gib(lora=TWO) == pytest.approx(2 * one, abs=0.02)
    assert cache_gib() - cache_gib(lora=TWO, max_loras=1, max_lora_rank=64) == pytest.approx(
        4 * one, abs=0.02
    )


def test_many_adapters_take_turns_in_four_places() -> None:
    many = {f"a{number}": "org/sql-lora@v1" for number in range(9)}
    assert planned(lora=many).services[0].flags["max-loras"] == 4


def test_what_is_not_right_about_them_is_refused() -> None:
    assert refusal(lora={"chat": "org/x"}, served_name="chat") == (
        "serve.chat.lora: an adapter has the model's own name. Choose another."
    )
    assert refusal(max_loras=2) == (
        "serve.chat.max_loras: is for adapters, and there are none. Set serve.chat.lora too."
    )
    assert refusal(lora={"a": "no-organisation"}).startswith("serve.chat.lora.a: 'no-organisation' has signs")
    assert refusal(lora={"a=b": "org/x"}).startswith("serve.chat.lora.a=b: 'a=b' has signs")


def test_an_adapter_that_is_served_cannot_be_absent() -> None:
    wanted = [
        {"serve": {"chat": {"model": MODEL, "lora": TWO}}, "models": {"org/legal-lora": {"state": "absent"}}}
    ]
    with pytest.raises(
        SettingsError, match=r"models.org/legal-lora.state: is absent, and serve.chat serves it"
    ):
        settings.read(wanted)
