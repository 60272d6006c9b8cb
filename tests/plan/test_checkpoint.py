"""A model's facts from its own files, on files that the real safetensors library wrote."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from plan import checkpoint
from plan.errors import PlanError

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "sliding_window": 1024,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
}


def model(directory: Path, changes: dict[str, Any] | None = None, *, shards: int = 1) -> Path:
    """A small model directory: an embedding, an output layer and a projection."""
    (directory / "config.json").write_text(json.dumps(CONFIG | (changes or {})))
    tensors = {
        "model.embed_tokens.weight": numpy.zeros((1000, 64), numpy.float16),
        "lm_head.weight": numpy.zeros((1000, 64), numpy.float16),
        "model.layers.0.mlp.up_proj.weight": numpy.zeros((128, 64), numpy.float16),
    }
    names = list(tensors)
    for shard in range(shards):
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, directory / f"model-{shard}.safetensors", metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize("shards", [1, 3])
def test_the_bytes_are_those_of_the_tensors_in_every_shard(tmp_path: Path, shards: int) -> None:
    facts = checkpoint.from_directory(model(tmp_path, shards=shards))
    assert facts.weight_bytes == 2 * (2 * 1000 * 64 + 128 * 64)


def test_a_tied_output_layer_is_loaded_once(tmp_path: Path) -> None:
    facts = checkpoint.from_directory(model(tmp_path, {"tie_word_embeddings": True}))
    assert facts.weight_bytes == 2 * (1000 * 64 + 128 * 64)


def test_the_shape_is_that_of_the_configuration(tmp_path: Path) -> None:
    facts = checkpoint.from_directory(model(tmp_path))
    assert (facts.layers, facts.attention_heads, facts.kv_heads, facts.head_size) == (2, 4, 2, 16)
    assert (facts.context, facts.vocabulary, facts.architecture) == (2048, 1000, "Qwen2ForCausalLM")
    assert not facts.sliding_window, "it is switched off"


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"head_dim": 128}, {"head_size": 128}),
        ({"num_key_value_heads": None}, {"kv_heads": 4}),
        ({"use_sliding_window": True}, {"sliding_window": 1024, "sliding_layers": 2}),
        (
            {"use_sliding_window": None, "layer_types": ["sliding_attention", "full_attention"]},
            {"sliding_window": 1024, "sliding_layers": 1},
        ),
        (
            {"quantization_config": {"quant_method": "awq", "group_size": 128, "bits": 4}},
            {"quantization": "awq", "quantization_group": 128},
        ),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
            {"quantization": "fp8", "quantization_group": 128},
        ),
        (
            {"quantization_config": {"quant_method": "compressed-tensors"}},
            {"quantization": "compressed-tensors", "quantization_group": 0},
        ),
        (
            {"num_experts_per_tok": 8, "moe_intermediate_size": 96},
            {"mixture_of_experts": True, "experts_per_token": 8, "expert_size": 96},
        ),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, {"kv_lora_rank": 512, "rope_head_size": 64}),
        ({"text_config": CONFIG | {"num_hidden_layers": 7}}, {"layers": 7}),
    ],
)
def test_variants_of_the_configuration_are_understood(
    tmp_path: Path, changes: dict[str, Any], fields: dict[str, Any]
) -> None:
    facts = checkpoint.from_directory(model(tmp_path, changes))
    assert {name: getattr(facts, name) for name in fields} == fields


def test_what_is_no_model_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"config\.json: No such file"):
        checkpoint.from_directory(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PlanError, match="holds no"):
        checkpoint.from_directory(tmp_path)


@pytest.mark.parametrize("text", ["not json", "[]", ""])
def test_a_damaged_configuration_is_refused(tmp_path: Path, text: str) -> None:
    model(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(PlanError, match=r"config\.json: is no JSON"):
        checkpoint.from_directory(tmp_path)


def test_a_configuration_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="says no num_attention_heads"):
        checkpoint.from_directory(model(tmp_path, {"num_attention_heads": None}))


@pytest.mark.parametrize("kept_bytes", [0, 4, 8, 40])
def test_a_cut_file_is_refused(tmp_path: Path, kept_bytes: int) -> None:
    (file,) = model(tmp_path).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:kept_bytes])
    with pytest.raises(PlanError, match="Fetch it again"):
        checkpoint.from_directory(tmp_path)


def test_a_header_that_claims_gigabytes_is_refused() -> None:
    with pytest.raises(PlanError, match="no safetensors header"):
        checkpoint.header_length((10**12).to_bytes(8, "little"), "model.safetensors")
