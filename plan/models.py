"""What a model is, as far as memory and compatibility care."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from plan import tables


@dataclass(frozen=True)
class ModelFacts:
    """A model's shape and size.

    `weight_bytes`: of all tensors that are loaded; `context`: positions, in tokens; `expert_size`: width of
    one expert; `kv_lora_rank` and `rope_head_size`: the latent of multi-head latent attention;
    `sliding_layers` of the layers attend to no more than `sliding_window` tokens.
    """

    id: str
    architecture: str
    weight_bytes: int
    layers: int
    attention_heads: int
    kv_heads: int
    head_size: int
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    context: int
    source: str
    tied_embeddings: bool = False
    quantization: str | None = None
    quantization_group: int = 0
    mixture_of_experts: bool = False
    experts_per_token: int = 0
    expert_size: int = 0
    kv_lora_rank: int = 0
    rope_head_size: int = 0
    sliding_window: int = 0
    sliding_layers: int = 0
    verified: bool = True


@lru_cache(maxsize=1)
def known() -> dict[str, ModelFacts]:
    """The models whose facts need no network, by lower-case id."""
    raw: dict[str, list[dict[str, Any]]] = tables.read("models")
    return {row["id"].lower(): ModelFacts(**row) for row in raw["model"]}


def lookup(model_id: str) -> ModelFacts | None:
    """The facts of a model in the tables; None for any other. ModelScope's old `qwen/` is `Qwen/`."""
    return known().get(model_id.lower())
