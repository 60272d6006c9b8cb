"""How much memory a model takes, after vLLM's own formulas. Sizes in bytes or GiB, as named."""

import math

GIB = 1024**3
MIB = 1024**2

BYTES_PER_ELEMENT = {
    "auto": 2.0,
    "half": 2.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "float32": 4.0,
    "float": 4.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    # of Ollama, with the scale of each block of 32
    "f16": 2.0,
    "q8_0": 34 / 32,
    "q4_0": 18 / 32,
}

# Copies of a hidden state that are alive at the peak of a layer: residual, normalised input, output, and
# half of one more on average. From logs of Llama 3.1 8B at 20000 and 29000 tokens (vllm#10517).
_HIDDEN_COPIES = 3.5
# gate, up and their product.
_FEED_FORWARD_COPIES = 3
_ACTIVATION_BYTES = 2


def gib(size_bytes: float) -> float:
    """Bytes as GiB."""
    return size_bytes / GIB


def kv_bytes_per_token(
    *, layers: int, kv_heads: int, head_size: int, bytes_per_element: float = 2.0, tensor_parallel: int = 1
) -> float:
    """Bytes that one token takes in the KV cache of one GPU, over `layers` attention layers.

    KV heads are split over the tensor-parallel ranks, and repeated when there are fewer heads than ranks.
    """
    heads_per_rank = max(1, math.ceil(kv_heads / tensor_parallel))
    return layers * heads_per_rank * 2 * head_size * bytes_per_element


def latent_kv_bytes_per_token(
    *, layers: int, kv_lora_rank: int, rope_head_size: int, bytes_per_element: float = 2.0
) -> float:
    """The same for multi-head latent attention: one latent vector, not split by tensor parallelism."""
    return layers * (kv_lora_rank + rope_head_size) * bytes_per_element


def kv_bytes_for_context(
    *, context: int, bytes_per_token: float, sliding_share: float = 0.0, sliding_window: int = 0
) -> float:
    """Bytes of KV cache that one sequence of `context` tokens takes.

    `sliding_share` of the layers keep no more than their window.
    """
    windowed = min(context, sliding_window) if sliding_window else context
    return bytes_per_token * ((1 - sliding_share) * context + sliding_share * windowed)


def lora_bytes(
    *,
    slots: int,
    rank: int,
    layers: int,
    hidden_size: int,
    intermediate_size: int,
    query_size: int,
    key_value_size: int,
    vocabulary: int,
) -> float:
    """Both matrices of every layer that an adapter may change, for each adapter with a place in memory.

    vLLM allocates them at start, whatever the adapters really change (vllm/lora/layers). Tensor parallelism
    splits one matrix of each pair; that is left out, on the safe side.
    """
    attention = 3 * hidden_size + query_size + 2 * key_value_size + query_size + hidden_size
    feed_forward = 2 * (hidden_size + intermediate_size) + intermediate_size + hidden_size
    ends = 2 * (vocabulary + hidden_size)
    return slots * rank * _ACTIVATION_BYTES * (layers * (attention + feed_forward) + ends)


def layer_peak_bytes(*, tokens: int, hidden_size: int, intermediate_size: int, tensor_parallel: int) -> float:
    """Peak of the activations inside one layer when `tokens` tokens go through at once."""
    feed_forward = _FEED_FORWARD_COPIES * intermediate_size / tensor_parallel
    return tokens * _ACTIVATION_BYTES * (feed_forward + _HIDDEN_COPIES * hidden_size)


def sampler_peak_bytes(*, sequences: int, vocabulary: int, bytes_per_logit: float) -> float:
    """Peak while the next tokens of `sequences` sequences are sampled: logits and their sorted copies."""
    return sequences * vocabulary * bytes_per_logit


def expert_workspace_bytes(
    *, tokens: int, experts_per_token: int, expert_size: int, hidden_size: int, tensor_parallel: int
) -> float:
    """Buffers of the fused mixture-of-experts kernel: gate and up, and the output, per routed token."""
    routed = tokens * experts_per_token
    return routed * _ACTIVATION_BYTES * (2 * expert_size / tensor_parallel + hidden_size)


def weights_per_rank_bytes(
    *,
    weight_bytes: int,
    embedding_bytes: int,
    tied_embeddings: bool,
    layers: int,
    tensor_parallel: int,
    pipeline_parallel: int,
) -> float:
    """Weights of the heaviest rank. Layers go to pipeline stages whole; the ends hold the embeddings too."""
    if pipeline_parallel == 1:
        return weight_bytes / tensor_parallel
    in_layers = weight_bytes - embedding_bytes * (1 if tied_embeddings else 2)
    most_layers = math.ceil(layers / pipeline_parallel)
    return (in_layers * most_layers / layers + embedding_bytes) / tensor_parallel
