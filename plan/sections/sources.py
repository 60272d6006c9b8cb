"""`sources`: where everything comes from."""

from typing import Literal

from pydantic import Field

from plan.sections.base import BundlePlace, ModelPlace, Section, Sha256, Url, Version


class Sources(Section):
    """Where everything that a host fetches comes from; a preset's name, or a preset with changes."""

    preset: Literal["default", "china"] = Field("default", description="The set of addresses to start from.")
    models: list[ModelPlace] | Url | None = Field(
        None,
        description="ModelScope endpoint, or the places of models, tried in order: `modelscope+URL`, "
        "`huggingface+URL`, `mirror+URL`, `host:/DIRECTORY`, `operator:DIRECTORY` (docs/models.md).",
        examples=["https://www.modelscope.cn"],
    )
    conda_installer: Url | None = Field(None, description="URL of the Miniforge installer.")
    conda_installer_sha256: Sha256 | None = Field(
        None, description="sha256 of that installer; needed when `conda_installer` is another version's."
    )
    conda_channel: Url | None = Field(None, description="Base URL of the conda-forge channel.")
    wheels: Url | None = Field(None, description="Python package index; the tool's own default when absent.")
    wheels_extra: list[Url] = Field(default_factory=list, description="Further package indexes.")
    wheels_links: list[Url] = Field(default_factory=list, description="Pages or directories of wheels.")
    torch: Url | None = Field(
        None, description="Base URL of the torch indexes; `/cpu`, `/cu128` ... is added."
    )
    vllm: Url | None = Field(
        None, description="Base URL of vLLM's own indexes; `/<version>/<variant>` is added."
    )
    ollama: Url | None = Field(
        None, description="Base URL of Ollama's release archives; `/v<version>/<file>` is added."
    )
    ollama_version: Version | None = Field(
        None, description="Ollama's version; the newest known when absent.", examples=["0.40.2"]
    )
    ollama_sha256: Sha256 | None = Field(
        None, description="sha256 of that version's archive; needed when `ollama_version` is not known here."
    )
    nvidia: Url | None = Field(
        None,
        description="Base URL of NVIDIA's package repositories; `/<system>/<architecture>` is added. A local "
        "mirror keeps NVIDIA's own layout and keys.",
        examples=["https://mirror.example.org/cuda/repos"],
    )
    apt: Url | None = Field(None, description="Debian or Ubuntu mirror; the host's own sources when absent.")
    bundle: BundlePlace | None = Field(
        None,
        description="A bundle of `python -m plan bundle`, from which everything comes: a directory on the "
        "host, `operator:DIRECTORY` on the operator's machine, or a URL: docs/bundle.md.",
        examples=["/media/bundle"],
    )
