"""Predictions beside what vLLM printed at start, in logs that others published."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plan import memory, models
from plan.fit import FitWish, Split
from plan.gpus import lookup

LOGS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("startup_logs.toml").read_text())["log"]


def name(log: dict[str, Any]) -> str:
    return f"{log['model']}-{log['gpu']}-{log['vllm']}-{log.get('tensor_parallel', 1)}-{log['context']}"


def split(log: dict[str, Any]) -> Split:
    """The split of the log, on a GPU with the memory that its log names."""
    model, gpu = models.lookup(log["model"]), lookup(log["gpu"])
    assert model
    wish = FitWish(
        vllm=log["vllm"],
        max_model_len=log["context"],
        utilization=log["utilization"],
        kv_cache_dtype=log.get("kv_cache_dtype"),
    )
    gpu = replace(gpu, memory_gib=log.get("total_gib", gpu.memory_gib))
    return Split(model, gpu, wish, log.get("tensor_parallel", 1))


def test_there_are_ten_logs_and_each_is_cited() -> None:
    assert len(LOGS) >= 10
    assert all(log["source"] for log in LOGS)


@pytest.mark.parametrize("log", [log for log in LOGS if "weights_gib" in log], ids=name)
def test_weights_are_within_five_percent(log: dict[str, Any]) -> None:
    tolerance = 0.08 if "explained" in log else 0.05
    assert split(log).weights_gib == pytest.approx(log["weights_gib"], rel=tolerance)


@pytest.mark.parametrize("log", [log for log in LOGS if "kv_gib" in log], ids=name)
def test_the_kv_cache_is_within_ten_percent(log: dict[str, Any]) -> None:
    predicted = split(log)
    assert predicted.cache_gib(log["context"]) == pytest.approx(log["kv_gib"], rel=0.10)


@pytest.mark.parametrize("log", [log for log in LOGS if "kv_tokens" in log], ids=name)
def test_the_tokens_of_the_kv_cache_are_within_ten_percent(log: dict[str, Any]) -> None:
    predicted = split(log)
    tokens = predicted.cache_gib(log["context"]) * memory.GIB / predicted.kv_bytes_per_token
    assert tokens == pytest.approx(log["kv_tokens"], rel=0.10)


def test_a_card_that_vllm_found_too_small_is_found_too_small() -> None:
    (log,) = [log for log in LOGS if log["gpu"] == "RTX 4060"]
    assert split(log).longest_context() == 0
