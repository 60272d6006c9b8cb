"""`serve`: the services of a host."""

from typing import Literal

from pydantic import Field

from plan import operator_flags
from plan.sections.base import (
    AdapterId,
    AdapterName,
    Argument,
    Flag,
    FlagText,
    ModelId,
    Revision,
    Section,
    ServedModel,
    State,
    TemplateFile,
    Version,
)
from plan.sections.batch import Batch
from plan.sections.ollama import OllamaServer


class Service(Section):
    """One entry of `serve`: a model behind an OpenAI-style API on this host."""

    model: ServedModel = Field(
        "",
        description="Model id on the hub; required, except with `state: absent`. With `engine: ollama` a tag "
        "of its library (`qwen2.5:7b`), or of ModelScope's "
        "(`modelscope.cn/Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M`).",
        examples=["Qwen/Qwen2.5-7B-Instruct"],
    )
    engine: Literal["vllm", "ollama"] = Field("vllm", description="What serves the model.")
    mode: Literal["serve", "batch"] = Field(
        "serve", description="`serve` answers clients; `batch` answers a file of requests, and ends."
    )
    batch: Batch = Field(default_factory=Batch, description="What is answered, with `mode: batch`.")
    revision: Revision = Field("master", description="Branch, tag or commit of the model.")
    port: int | None = Field(
        None,
        ge=1024,
        le=65535,
        description="TCP port; decided when absent: 8000, 8001, ... in order of names, and kept.",
    )
    served_name: ModelId | None = Field(
        None, description="Name that clients ask for; the model id when absent."
    )
    gpus: int | None = Field(
        None, ge=1, le=64, description="How many GPUs; decided from the fit when absent."
    )
    max_model_len: int | None = Field(
        None, ge=16, le=10_000_000, description="Context length in tokens; decided from the fit when absent."
    )
    gpu_memory_utilization: float | None = Field(
        None, gt=0.05, le=0.98, description="Share of each GPU's memory that vLLM may take."
    )
    dtype: Literal["auto", "half", "float16", "bfloat16", "float32"] | None = Field(
        None, description="Type of weights and activations; vLLM's own choice when absent."
    )
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"] | None = Field(
        None, description="Type of the KV cache; the model's own when absent."
    )
    vllm: Version | None = Field(
        None, description="vLLM version to hold to; decided when absent.", examples=["0.19.1"]
    )
    tools: bool = Field(
        False,
        description="Clients may give the model tools to call; how the model writes such calls is known from "
        "its family.",
    )
    reasoning: bool = Field(
        False,
        description="What the model thinks is told from what it answers; how is known from its family.",
    )
    chat_template: TemplateFile | None = Field(
        None,
        description="Chat template in place of the model's own: a file on the operator's machine, or "
        "`model:FILE` for another one that the model brings along.",
        examples=["templates/helpdesk.jinja"],
    )
    lora: dict[AdapterName, AdapterId] = Field(
        default_factory=dict,
        description="LoRA adapters of the model: the name that clients ask for, and the adapter's id on the "
        "hub with its revision.",
        examples=[{"sql": "my-org/qwen2.5-7b-sql@v1"}],
    )
    max_loras: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Adapters that have a place on the GPU at once; all when absent, at most 4. "
        "Others take turns.",
    )
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] | None = Field(
        None, description="Largest rank of the adapters (`r` in adapter_config.json); 16 when absent."
    )
    flags: dict[Flag, bool | int | float | FlagText] = Field(
        default_factory=dict,
        description="Further `vllm serve` flags without the leading dashes; merged one by one over host, "
        "groups and `all`.",
        examples=[{"enable-prefix-caching": True}],
    )
    extra_args: list[Argument] = Field(
        default_factory=list,
        description="Further `vllm serve` flags as words of its command line, replaced as a whole.",
        examples=[["--max-num-seqs", "64", "--no-enable-prefix-caching"]],
    )
    ollama: OllamaServer = Field(
        default_factory=OllamaServer, description="How Ollama runs, with `engine: ollama`."
    )
    state: State = Field("present", description="`absent` stops and removes the service.")

    @property
    def own_flags(self) -> dict[str, operator_flags.Value]:
        """What the operator wrote of vLLM's flags, in `flags` and in `extra_args`."""
        return {**self.flags, **operator_flags.parse(self.extra_args)}
