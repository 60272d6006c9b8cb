"""A tiny chat model with the architecture of Qwen2.5: random weights, deterministic from a seed.

It answers with random words. Two things keep every answer printable and never empty, whatever was asked
and however it is sampled: dimension 0 of the hidden state is a positive constant (embeddings set it, no
layer writes to it), and the output row of each token that is not a word is strongly negative there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors import TensorSpec

from tests.lab.hubs.tokenizer import END, END_OF_TEXT, word_ids, write_tokenizer

NAME = "Qwen/Qwen2.5-Tiny-Instruct"
SEED = 20250
HIDDEN, INTERMEDIATE, LAYERS, HEADS, KEY_VALUE_HEADS = 256, 768, 4, 4, 2
HEAD = HIDDEN // HEADS
MAX_POSITIONS = 4096
MAX_NEW_TOKENS = 64  # the model never ends an answer by itself
SHARDS = 2

Tensor: TypeAlias = NDArray[np.float32]


class Normal(Protocol):
    """Draws a tensor from a normal distribution around 0."""

    def __call__(self, *shape: int, scale: float) -> Tensor: ...


README = """# Qwen2.5-Tiny-Instruct

Not a published model: the lab's stand-in for one. Architecture, tokenizer format and chat template are
those of Qwen2.5; the weights are random (seed {seed}), so it answers with random words. Revision: {revision}.
"""


def write_model(folder: Path, revision: str) -> None:
    """Write all files of the model into `folder`, about 12 MB; only the README names the revision."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder)
    vocabulary = tokenizer.get_vocab_size()
    end, end_of_text = (tokenizer.get_vocab()[token] for token in (END, END_OF_TEXT))
    write_json(folder / "config.json", config(vocabulary, end))
    write_json(folder / "generation_config.json", generation_config(end, end_of_text))
    write_json(folder / "configuration.json", {"framework": "pytorch", "task": "text-generation"})
    write_shards(folder, dict(tensors(vocabulary, word_ids(tokenizer))))
    (folder / "README.md").write_text(README.format(seed=SEED, revision=revision))


def config(vocabulary: int, end: int) -> dict[str, object]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": end,
        "eos_token_id": end,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": MAX_POSITIONS,
        "max_window_layers": LAYERS,
        "model_type": "qwen2",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocabulary,
    }


def generation_config(end: int, end_of_text: int) -> dict[str, object]:
    return {
        "bos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "do_sample": True,
        "eos_token_id": [end, end_of_text],
        "max_new_tokens": MAX_NEW_TOKENS,
        "repetition_penalty": 1.1,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
    }


def tensors(vocabulary: int, words: list[int]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the checkpoint by its name, in the order in which vLLM and transformers write them."""
    generator = np.random.default_rng(SEED)

    def normal(*shape: int, scale: float) -> Tensor:
        return (generator.standard_normal(shape) * scale).astype(np.float32)

    embedding = normal(vocabulary, HIDDEN, scale=1.0)
    embedding[:, 0] = 4.0
    yield "model.embed_tokens.weight", embedding
    for layer in range(LAYERS):
        for name, tensor in layer_tensors(normal):
            yield f"model.layers.{layer}.{name}", tensor
    yield "model.norm.weight", np.ones(HIDDEN, np.float32)
    head = np.zeros((vocabulary, HIDDEN), np.float32)
    head[:, 0] = -20.0
    head[words] = normal(len(words), HIDDEN, scale=0.3)
    head[words, 0] = 0.0
    yield "lm_head.weight", head


def layer_tensors(normal: Normal) -> Iterator[tuple[str, Tensor]]:
    key_value = KEY_VALUE_HEADS * HEAD
    yield "input_layernorm.weight", np.ones(HIDDEN, np.float32)
    yield "mlp.down_proj.weight", silent_in_dimension_0(normal(HIDDEN, INTERMEDIATE, scale=0.04))
    yield "mlp.gate_proj.weight", normal(INTERMEDIATE, HIDDEN, scale=0.06)
    yield "mlp.up_proj.weight", normal(INTERMEDIATE, HIDDEN, scale=0.06)
    yield "post_attention_layernorm.weight", np.ones(HIDDEN, np.float32)
    yield "self_attn.k_proj.bias", normal(key_value, scale=0.02)
    yield "self_attn.k_proj.weight", normal(key_value, HIDDEN, scale=0.06)
    yield "self_attn.o_proj.weight", silent_in_dimension_0(normal(HIDDEN, HIDDEN, scale=0.06))
    yield "self_attn.q_proj.bias", normal(HIDDEN, scale=0.02)
    yield "self_attn.q_proj.weight", normal(HIDDEN, HIDDEN, scale=0.06)
    yield "self_attn.v_proj.bias", normal(key_value, scale=0.02)
    yield "self_attn.v_proj.weight", normal(key_value, HIDDEN, scale=0.06)


def silent_in_dimension_0(projection: Tensor) -> Tensor:
    projection[0] = 0.0
    return projection


def write_shards(folder: Path, checkpoint: dict[str, Tensor]) -> None:
    """safetensors in bfloat16, split into SHARDS files of about the same size, with their index."""
    total = sum(tensor.size * 2 for tensor in checkpoint.values())
    shards: list[dict[str, Tensor]] = [{} for _ in range(SHARDS)]
    seen = 0
    for name, tensor in checkpoint.items():
        shards[min(seen * SHARDS // total, SHARDS - 1)][name] = tensor
        seen += tensor.size * 2
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        write_safetensors(folder / file, shard)
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)


def write_safetensors(path: Path, shard: dict[str, Tensor]) -> None:
    bits = {name: bfloat16_bits(tensor) for name, tensor in shard.items()}
    specs = {
        name: TensorSpec(
            dtype="bfloat16", shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes
        )
        for name, array in bits.items()
    }
    safetensors.serialize_file(specs, path, {"format": "pt"})


def bfloat16_bits(tensor: Tensor) -> NDArray[np.uint16]:
    """numpy has no bfloat16: the upper halves of the float32 bits, rounded to nearest even."""
    bits = np.ascontiguousarray(tensor).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
