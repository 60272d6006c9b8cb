"""A tiny LoRA adapter of the tiny chat model, in PEFT's format: random, deterministic, and plainly heard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.lab.hubs import chat_model
from tests.lab.hubs.chat_model import HIDDEN, INTERMEDIATE, LAYERS, Tensor, write_json, write_safetensors

NAME = "lab/Qwen2.5-Tiny-LoRA"
SEED = 20251
RANK = 8

README = """# Qwen2.5-Tiny-LoRA

Not a published adapter: the lab's stand-in for one. With it the tiny model says other random words.
"""


def write_adapter(folder: Path) -> None:
    """Write the three files of an adapter, about 300 KB."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "adapter_config.json", config())
    write_safetensors(folder / "adapter_model.safetensors", dict(tensors()))
    (folder / "README.md").write_text(README)


def config() -> dict[str, object]:
    return {
        "base_model_name_or_path": chat_model.NAME,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": ["down_proj"],
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
    }


def tensors() -> Iterator[tuple[str, Tensor]]:
    """Like every layer of the model, the adapter writes nothing to dimension 0 of the hidden state."""
    generator = np.random.default_rng(SEED)
    for layer in range(LAYERS):
        name = f"base_model.model.model.layers.{layer}.mlp.down_proj"
        down = (generator.standard_normal((RANK, INTERMEDIATE)) * 0.1).astype(np.float32)
        up = (generator.standard_normal((HIDDEN, RANK)) * 0.3).astype(np.float32)
        yield f"{name}.lora_A.weight", down
        yield f"{name}.lora_B.weight", chat_model.silent_in_dimension_0(up)
