"""The models whose facts need no network."""

import pytest

from plan import compat, models
from plan.models import ModelFacts

QWEN = ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")


def dense_parameters(model: ModelFacts) -> int:
    """Parameters of a dense decoder from its shape, without biases and norms, which are a thousandth."""
    attention = model.hidden_size * model.head_size * (2 * model.attention_heads + 2 * model.kv_heads)
    layer = attention + 3 * model.hidden_size * model.intermediate_size
    embeddings = model.vocabulary * model.hidden_size * (1 if model.tied_embeddings else 2)
    return embeddings + model.layers * layer


@pytest.mark.parametrize("size", QWEN)
def test_the_qwen_family_is_complete(size: str) -> None:
    for suffix in ("", "-Instruct", "-Instruct-AWQ", "-Instruct-GPTQ-Int4", "-Instruct-GPTQ-Int8"):
        assert models.lookup(f"Qwen/Qwen2.5-{size}{suffix}"), suffix


@pytest.mark.parametrize(
    "model_id",
    [
        "Qwen/Qwen2.5-Coder-32B-Instruct",
        "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ",
        "Qwen/Qwen2.5-Math-72B-Instruct",
        "Qwen/Qwen3-8B",
        "Qwen/Qwen3-30B-A3B",
        "Qwen/Qwen3-235B-A22B-FP8",
        "Qwen/QwQ-32B",
        "deepseek-ai/DeepSeek-R1",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.3-70B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "google/gemma-2-27b-it",
        "microsoft/phi-4",
        "zai-org/GLM-4-9B-0414",
        "openai/gpt-oss-20b",
    ],
)
def test_what_people_serve_most_is_known(model_id: str) -> None:
    assert models.lookup(model_id)


def test_the_id_of_the_old_hub_spelling_is_found() -> None:
    assert models.lookup("qwen/Qwen2.5-7B-Instruct") == models.lookup("Qwen/Qwen2.5-7B-Instruct")


@pytest.mark.parametrize(
    "model",
    [model for model in models.known().values() if not model.quantization and not model.mixture_of_experts],
    ids=lambda model: model.id,
)
def test_the_bytes_of_a_dense_model_are_two_per_parameter_of_its_shape(model: ModelFacts) -> None:
    assert model.weight_bytes / 2 == pytest.approx(dense_parameters(model), rel=0.002)


@pytest.mark.parametrize(
    "model",
    [model for model in models.known().values() if model.quantization in ("awq", "gptq")],
    ids=lambda model: model.id,
)
def test_a_quantized_model_is_smaller_than_what_it_was_made_of(model: ModelFacts) -> None:
    bits = 8 if "Int8" in model.id else 4
    linear = dense_parameters(model) - model.vocabulary * model.hidden_size * (
        1 if model.tied_embeddings else 2
    )
    least = linear * bits / 8
    assert least < model.weight_bytes < model.vocabulary * model.hidden_size * 4 + least * 1.2


def test_every_model_has_a_source_and_its_architecture_is_known() -> None:
    for model in models.known().values():
        assert model.source
        assert model.architecture in compat.architectures(), model.id


def test_heads_and_layers_of_every_model_are_consistent() -> None:
    for model in models.known().values():
        assert model.attention_heads % model.kv_heads == 0, model.id
        assert 0 <= model.sliding_layers <= model.layers, model.id
        assert bool(model.experts_per_token) == model.mixture_of_experts, model.id
