"""`models`: downloads without a service, and how every model is brought to its hosts."""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from plan.sections.base import ModelId, Revision, Section, State, Url

# A file of a model, or a shell pattern of files; `*` matches slashes too.
FilePattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._*?\[][A-Za-z0-9._*?/\[\]+=@-]{0,199}$")]


def _network(text: str) -> str:
    ipaddress.IPv4Network(text)
    return text


Network = Annotated[str, AfterValidator(_network)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]{0,60}$")]


class Download(Section):
    """One entry of `models`, under its model id; it also says which files of a served model are wanted."""

    revision: Revision = Field("master", description="Branch, tag or commit of the model.")
    include: list[FilePattern] = Field(
        default_factory=list,
        description="Only these files: names or patterns. A served model of this id heeds it too.",
        examples=[["*.json", "*q4_k_m.gguf"]],
    )
    exclude: list[FilePattern] = Field(
        default_factory=list, description="Never these files: names or patterns.", examples=[["*.pth"]]
    )
    state: State = Field(
        "present",
        description="`absent` removes the model from the host: all of it, or only a `revision` that is set.",
    )


class Models(Section):
    """How models come to hosts. An entry under a model id (it has a slash) is a download."""

    verify: Literal["quick", "full"] = Field(
        "quick",
        description="`quick`: a model whose files have their recorded sizes and times is taken as verified; "
        "`full`: every file is hashed again, and what is wrong is fetched anew.",
    )
    keep: int = Field(1, ge=0, le=20, description="How many earlier commits of a model stay on the host.")
    seeds: int = Field(
        1,
        ge=0,
        le=64,
        description="How many of the hosts that want the same model pull it from its source; the others "
        "get it from them over the LAN. 0: every host pulls for itself.",
    )
    network: Network | None = Field(
        None,
        description="Network over which hosts exchange models; when absent, hosts of the same subnet do.",
        examples=["10.1.0.0/16"],
    )
    max_rate_mbit: int | None = Field(
        None, ge=1, le=400_000, description="Most that one host takes from outside, in Mbit/s."
    )
    proxy: Url | None = Field(
        None,
        description="HTTP proxy through which hosts download models.",
        examples=["http://proxy.example:3128"],
    )
    proxy_credentials_file: str | None = Field(
        None, description="File on the operator's machine whose only line is the proxy's `USER:PASSWORD`."
    )
    proxy_credentials_env: VariableName | None = Field(
        None, description="Environment variable on the operator's machine that holds them."
    )
    token_file: str | None = Field(
        None, description="File on the operator's machine whose only line is the ModelScope token."
    )
    token_env: VariableName | None = Field(
        None, description="Environment variable on the operator's machine that holds the ModelScope token."
    )
    huggingface_token_file: str | None = Field(
        None, description="File on the operator's machine whose only line is the Hugging Face token."
    )
    huggingface_token_env: VariableName | None = Field(
        None, description="Environment variable on the operator's machine that holds the Hugging Face token."
    )
    downloads: dict[ModelId, Download] = Field(
        default_factory=dict, description="The entries under model ids.", exclude=True
    )

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: Any) -> Any:
        """What stands under a model id is an entry; everything else is a setting of the section."""
        if not isinstance(data, Mapping):
            return data
        entries = {key: value for key, value in data.items() if isinstance(key, str) and "/" in key}
        settings = {key: value for key, value in data.items() if key not in entries}
        if "downloads" in settings:
            settings["downloads "] = settings.pop("downloads")  # entries are written under their ids only
        return settings | ({"downloads": entries} if entries else {})
