"""What vLLM sets aside at start, by release and GPU: its own defaults and measured constants."""

from dataclasses import dataclass

from plan import memory
from plan.compat import version
from plan.gpus import Capability, Gpu
from plan.models import ModelFacts

# The release whose constants are used where none has been decided on.
NEWEST = "0.32.0"

# vllm/engine/arg_utils.py in the wheels of 0.8.3 to 0.32.0
_LARGE_GIB = 70
_LARGEST_GIB = 160
CHUNKED_FROM_CONTEXT = 32768
_CHUNK_TOKENS = 2048
_V0_SEQUENCES = 256

# Bytes per logit at the sampler's peak: Qwen3-14B took 5.64 GiB up to 0.16.0 and 2.23 GiB from 0.17.0 on,
# with 1024 sequences of 151936 logits (llm-d-planner, accuracy_report.md).
_BYTES_PER_LOGIT_OLD, _BYTES_PER_LOGIT = 38, 14
_BASE_GIB_OLD, _BASE_GIB = 0.05, 0.11
# What is outside torch: the CUDA context; with several GPUs also the buffers of NCCL and of the all-reduce.
_CONTEXT_GIB_OLD, _CONTEXT_GIB = 0.13, 0.25
_COMMUNICATION_GIB = 1.85
# CUDA graphs: 0.51 to 1.85 GiB on an H100 with graphs of up to 512 sequences (same report), less with fewer.
_GRAPHS_GIB, _GRAPHS_GIB_LARGE = 0.5, 1.0


@dataclass(frozen=True)
class Profile:
    """A vLLM release on a kind of GPU.

    `utilization`: its default share of the memory; `graphs_counted`: whether it takes its CUDA graphs out of
    that share (older releases put them on top).
    """

    vllm: str
    gpu: Gpu

    @property
    def utilization(self) -> float:
        """vllm/config/cache.py: 0.9 in 0.19.1, 0.92 in 0.20.2."""
        return 0.92 if self._since("0.20.0") else 0.9

    @property
    def graphs_counted(self) -> bool:
        """VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS: off in 0.19.1, on in 0.20.2."""
        return self._since("0.20.0")

    @property
    def first_engine(self) -> bool:
        """Whether the V0 engine runs: before 0.8, and up to 0.10 on GPUs older than Ampere."""
        return not self._since("0.8.0") or (
            self.gpu.capability < Capability(8, 0) and not self._since("0.11.0")
        )

    def tokens(self, context: int) -> int:
        """Tokens that go through the model at once: max_num_batched_tokens by default."""
        if self.first_engine:
            return _CHUNK_TOKENS if context > CHUNKED_FROM_CONTEXT else max(context, _CHUNK_TOKENS)
        if self.gpu.memory_gib >= _LARGEST_GIB and self._since("0.32.0"):
            return 16384
        return 8192 if self._large else 2048

    @property
    def sequences(self) -> int:
        """Sequences that are served at once: max_num_seqs by default."""
        return 1024 if self._large and not self.first_engine else _V0_SEQUENCES

    @property
    def _large(self) -> bool:
        return self.gpu.memory_gib >= _LARGE_GIB and not self.gpu.name.startswith("A100")

    def reserve_gib(self, model: ModelFacts, context: int, tensor_parallel: int, eager: bool) -> float:
        """What is kept from the KV cache beside the weights: activations, CUDA context, graphs."""
        reserve = self.activation_gib(model, context, tensor_parallel)
        reserve += _CONTEXT_GIB if self._since("0.18.0") else _CONTEXT_GIB_OLD
        if tensor_parallel > 1:
            reserve += _COMMUNICATION_GIB
        if self.graphs_counted and not eager:
            reserve += _GRAPHS_GIB_LARGE if self._large else _GRAPHS_GIB
        return reserve

    def activation_gib(self, model: ModelFacts, context: int, tensor_parallel: int) -> float:
        """Peak of torch's memory above the weights in the profiling run, in GiB."""
        tokens = self.tokens(context)
        new = self._since("0.17.0")
        layer = memory.layer_peak_bytes(
            tokens=tokens,
            hidden_size=model.hidden_size,
            intermediate_size=0 if model.expert_size else model.intermediate_size,
            tensor_parallel=tensor_parallel,
        )
        sampler = tokens * model.hidden_size * 2 + memory.sampler_peak_bytes(
            sequences=self.sequences,
            vocabulary=model.vocabulary,
            bytes_per_logit=_BYTES_PER_LOGIT if new else _BYTES_PER_LOGIT_OLD,
        )
        experts = memory.expert_workspace_bytes(
            tokens=tokens,
            experts_per_token=model.experts_per_token,
            expert_size=model.expert_size,
            hidden_size=model.hidden_size,
            tensor_parallel=tensor_parallel,
        )
        return memory.gib(max(layer, sampler) + experts) + (_BASE_GIB if new else _BASE_GIB_OLD)

    def _since(self, release: str) -> bool:
        return version(self.vllm) >= version(release)
