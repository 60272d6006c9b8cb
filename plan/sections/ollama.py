"""`ollama` and `serve.<name>.ollama`: Ollama's own settings, of a host and of one service."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from plan.sections.base import Section, ServedModel, Url

Duration = Annotated[str, StringConstraints(pattern=r"^(-1|0|[1-9][0-9]{0,5}(ms|s|m|h))$")]
# A scheme and a host as browsers send it; Ollama reads `*` as any text.
Origin = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z-]{1,30}://[A-Za-z0-9.*_-]{1,200}(:([0-9]{1,5}|\*))?$")
]
# Absolute, two folders deep at least, nothing hidden and nothing that a shell or a unit would expand.
StorePath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9._-]{0,63}){2,12}$")]


class OllamaServer(Section):
    """`serve.<name>.ollama`: how this service's Ollama runs; refused for vLLM."""

    modelfile: str | None = Field(
        None,
        description="Modelfile on the operator's machine, from which `model` is then created. Its FROM names "
        "a tag, which is pulled, or a GGUF file of an entry of `models` (`/srv/models/.../file.gguf`).",
        examples=["modelfiles/helpdesk"],
    )
    keep_alive: Duration = Field(
        "-1",
        description="How long an idle model stays in memory; `-1` is for ever. Other than that, the first "
        "question after a pause waits for the model.",
        examples=["30m"],
    )
    parallel: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Requests answered at once; each takes a KV cache of its own. Ollama's own choice (1) "
        "when absent.",
    )
    max_loaded: int = Field(
        1, ge=1, le=64, description="Models in memory at once; more than `model` only with `ollama.models`."
    )
    queue: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Requests that may wait; more are refused with 503. 512 when absent.",
    )
    load_timeout: Duration = Field(
        "30m", description="How long the loading of a model may stall before it counts as failed."
    )
    spread: bool = Field(False, description="Spread the model over all GPUs, even if it fits on fewer.")
    kv_cache_type: Literal["f16", "q8_0", "q4_0"] | None = Field(
        None,
        description="Type of the KV cache: `q8_0` takes about half of `f16`, `q4_0` a quarter. Both "
        "switch flash attention on.",
    )
    flash_attention: bool | None = Field(
        None, description="Flash attention; Ollama's own choice for the model when absent."
    )
    origins: list[Origin] = Field(
        default_factory=list,
        description="Further web origins whose pages may call the API; those of localhost always may.",
        examples=[["https://chat.example.org"]],
    )


class Ollama(Section):
    """`ollama`: what all services of Ollama on a host share."""

    store: StorePath = Field(
        "/srv/models/ollama",
        description="Directory of the pulled models, on a disk with room. When it changes, the models are "
        "moved there.",
        examples=["/data/ollama"],
    )
    models: list[ServedModel] = Field(
        default_factory=list,
        description="Further tags to keep in the store. Every service by Ollama answers for them too.",
        examples=[["qwen2.5:0.5b"]],
    )
    https_proxy: Url | None = Field(
        None,
        description="Proxy for the release and the models; Ollama knows no other kind. Without a password, "
        "which others on the host could read.",
        examples=["http://proxy.intranet:3128"],
    )
    prune: bool = Field(
        False,
        description="Remove models from the store that no setting names, and the whole store with the last "
        "service by Ollama.",
    )
