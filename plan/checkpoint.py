"""A model's facts from its own files: config.json and the headers of its safetensors."""

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from plan.errors import PlanError
from plan.models import ModelFacts

# The header of a safetensors file says its own length in 8 bytes; the format allows no more than this.
LENGTH_BYTES = 8
MOST_HEADER_BYTES = 100_000_000
_OUTPUT_WEIGHTS = "lm_head.weight"

Header = Mapping[str, Mapping[str, Any]]


def from_directory(directory: Path) -> ModelFacts:
    """The facts of a model that lies in a directory.

    Raises:
        PlanError: it is no model directory, or one of its files is damaged; one sentence.
    """
    config = _read_config(directory / "config.json")
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise PlanError([f"{directory}: holds no *.safetensors. Give the directory of a whole model."])
    return facts(str(directory), config, (_read_header(file) for file in files), f"{directory}")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return parse_config(path.read_text(), str(path))
    except OSError as error:
        raise PlanError([f"{path}: {error.strerror}. Give the directory of a whole model."]) from None


def parse_config(text: str, where: str) -> dict[str, Any]:
    """config.json as a mapping.

    Raises:
        PlanError: it is no JSON object.
    """
    try:
        config = json.loads(text)
    except ValueError as error:
        raise PlanError([f"{where}: is no JSON ({error}). Fetch it again."]) from None
    if not isinstance(config, dict):
        raise PlanError([f"{where}: is no JSON object. Fetch it again."])
    return config


def _read_header(path: Path) -> Header:
    with path.open("rb") as file:
        length = header_length(file.read(LENGTH_BYTES), str(path))
        return parse_header(file.read(length), str(path))


def header_length(first_bytes: bytes, where: str) -> int:
    """Length in bytes of the header that follows the first eight.

    Raises:
        PlanError: the file is none, or cut.
    """
    length = int.from_bytes(first_bytes, "little") if len(first_bytes) == LENGTH_BYTES else 0
    if not 2 <= length <= MOST_HEADER_BYTES:
        raise PlanError([f"{where}: has no safetensors header. Fetch it again."])
    return length


def parse_header(raw: bytes, where: str) -> Header:
    """Tensor names with dtype, shape and offsets.

    Raises:
        PlanError: the header is damaged.
    """
    try:
        header = json.loads(raw)
        return {name: entry for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, AttributeError):
        raise PlanError([f"{where}: its safetensors header is damaged. Fetch it again."]) from None


def facts(model_id: str, config: Mapping[str, Any], headers: Iterable[Header], source: str) -> ModelFacts:
    """The facts that config.json and the tensors say.

    Raises:
        PlanError: config.json lacks something that a causal language model has; one sentence.
    """
    text = config.get("text_config") or config
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    weight_bytes = sum(_loaded_bytes(header, tied) for header in headers)
    heads = _number(text, "num_attention_heads", model_id)
    layers = _number(text, "num_hidden_layers", model_id)
    hidden = _number(text, "hidden_size", model_id)
    quantization, group = _quantization(config)
    experts = text.get("num_experts_per_tok") or 0
    window, sliding_layers = _sliding(text, layers)
    rope_size = text.get("qk_rope_head_dim") or 0
    return ModelFacts(
        id=model_id,
        architecture=(config.get("architectures") or ["unknown"])[0],
        weight_bytes=weight_bytes,
        layers=layers,
        attention_heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_size=text.get("head_dim") or hidden // heads,
        hidden_size=hidden,
        intermediate_size=text.get("intermediate_size") or hidden * 4,
        vocabulary=_number(text, "vocab_size", model_id),
        context=_number(text, "max_position_embeddings", model_id),
        source=source,
        tied_embeddings=tied,
        quantization=quantization,
        quantization_group=group,
        mixture_of_experts=bool(experts),
        experts_per_token=experts,
        expert_size=(text.get("moe_intermediate_size") or text["intermediate_size"]) if experts else 0,
        kv_lora_rank=text.get("kv_lora_rank") or 0,
        rope_head_size=rope_size,
        sliding_window=window,
        sliding_layers=sliding_layers,
    )


def _loaded_bytes(header: Header, tied: bool) -> int:
    """Bytes of the tensors that are loaded: a tied output layer is the embedding and comes once."""
    total = 0
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        if not (tied and name == _OUTPUT_WEIGHTS):
            total += end - start
    return total


def parameters(header: Header) -> int:
    """How many numbers the tensors hold."""
    return sum(prod(entry["shape"]) for entry in header.values())


def _number(config: Mapping[str, Any], key: str, model_id: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value <= 0:
        raise PlanError([f"{model_id}: config.json says no {key}; it is no causal language model."])
    return value


def _quantization(config: Mapping[str, Any]) -> tuple[str | None, int]:
    """The method, and the group that the rows of a layer have to divide by; 0 when there is none."""
    quantization = config.get("quantization_config")
    if not quantization:
        return None, 0
    method = str(quantization.get("quant_method") or "unknown").lower().replace("_", "-")
    group = quantization.get("group_size") or 0
    block = quantization.get("weight_block_size") or [0]
    return method, max(int(group), int(block[0]), 0)


def _sliding(config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """The window and how many layers keep to it; no window where it is switched off or beyond the context."""
    window = config.get("sliding_window") or 0
    context = config.get("max_position_embeddings") or 0
    if not window or config.get("use_sliding_window") is False or window >= context:
        return 0, 0
    kinds = config.get("layer_types")
    if kinds:
        return window, sum(kind == "sliding_attention" for kind in kinds)
    pattern = config.get("sliding_window_pattern")
    return window, layers - layers // pattern if pattern else layers
