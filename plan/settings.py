"""What the operator writes: one strict model per section, merged over all, groups and host.

Every value that later reaches a shell, a template or a unit file is typed and matched against a pattern
here, so that nothing behind this module has to distrust it.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from plan.contradictions import contradictions
from plan.errors import SettingsError

State = Literal["present", "absent"]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
ModelId = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?(:[A-Za-z0-9._-]{1,64})?$"
    ),
]
# With `engine: ollama` a name may begin with the host of its registry.
ServedModel = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95}){0,2}(:[A-Za-z0-9._-]{1,64})?$"
    ),
]
Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.+!]{0,40}$")]
Pin = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z0-9,_-]+\])?==[0-9][A-Za-z0-9.+!]*$")
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Flag = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,60}$")]
FlagText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9{\[][A-Za-z0-9 ._,:/=+@{}\[\]\"-]{0,300}$")]
Url = Annotated[
    str,
    StringConstraints(
        pattern=r"^(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~%+,=@-]*)*|file:///[A-Za-z0-9._/+-]+)$"
    ),
]


class Section(BaseModel):
    """A section of the settings: unknown names are refused, values are never coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Service(Section):
    """One entry of `serve`: a model behind an OpenAI-style API on this host."""

    model: ServedModel = Field(
        description="Model id on the hub. With `engine: ollama` a tag of its library (`qwen2.5:7b`), or of "
        "ModelScope's (`modelscope.cn/Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M`).",
        examples=["Qwen/Qwen2.5-7B-Instruct"],
    )
    engine: Literal["vllm", "ollama"] = Field("vllm", description="What serves the model.")
    revision: Revision = Field("master", description="Branch, tag or commit of the model.")
    port: int | None = Field(
        None,
        ge=1024,
        le=65535,
        description="TCP port; decided when absent: 8000, 8001, ... in order of names.",
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
    vllm: Version | None = Field(
        None, description="vLLM version to hold to; decided when absent.", examples=["0.19.1"]
    )
    flags: dict[Flag, bool | int | float | FlagText] = Field(
        default_factory=dict,
        description="Further `vllm serve` flags without the leading dashes.",
        examples=[{"enable-prefix-caching": True}],
    )
    state: State = Field("present", description="`absent` stops and removes the service.")


class Download(Section):
    """One entry of `models`, under its model id: a download without a service."""

    revision: Revision = Field("master", description="Branch, tag or commit of the model.")
    state: State = Field("present", description="`absent` removes the model's directory.")


class Driver(Section):
    """The NVIDIA driver."""

    managed: bool = Field(
        True, description="False: the driver that is there is kept, whatever the plan prefers."
    )


class Environment(Section):
    """The conda environment that torch, vLLM and the ModelScope client live in."""

    name: Name = Field("serve", description="Name of the conda environment.")
    python: Annotated[str, StringConstraints(pattern=r"^3\.(9|1[0-4])$")] | None = Field(
        None, description="Python to use; decided when absent.", examples=["3.12"]
    )
    lock_file: str | None = Field(
        None,
        description="Explicit conda lock (`@EXPLICIT`, one URL#sha256 a line) on the operator's machine; "
        "the built-in lock of the planned Python when absent.",
    )
    torch: Version | None = Field(None, description="torch version to hold to.", examples=["2.9.0+cu128"])
    packages: list[Pin] = Field(
        default_factory=list, description="Further packages, exactly pinned.", examples=[["langfuse==3.0.0"]]
    )
    policy: Literal["native", "compatible"] = Field(
        "compatible",
        description="`native`: no CUDA newer than the driver's own; `compatible`: any minor of its major.",
    )
    prefer: Literal["safe", "newest"] = Field(
        "safe", description="`safe`: the newest vLLM without a known risk; `newest`: with warnings."
    )
    state: State = Field("present", description="`absent` removes the environment.")


class Access(Section):
    """Who reaches the services."""

    listen: str = Field(
        "127.0.0.1",
        description="Address to listen on, or a network: then the host's own address in it. Loopback only on "
        "a host with `engine: ollama`, which has no authentication.",
        examples=["10.1.0.0/16"],
    )
    api_key_file: str | None = Field(
        None,
        description="File on the operator's machine whose only line is the API key.",
        examples=["~/.config/bringup/api-key"],
    )
    api_key_env: Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]{0,60}$")] | None = Field(
        None, description="Environment variable on the operator's machine that holds the API key."
    )


class Sources(Section):
    """Where everything that a host fetches comes from; a preset's name, or a preset with changes."""

    preset: Literal["default", "china"] = Field("default", description="The set of addresses to start from.")
    models: Url | None = Field(
        None, description="ModelScope endpoint.", examples=["https://www.modelscope.cn"]
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
    apt: Url | None = Field(None, description="Debian or Ubuntu mirror; the host's own sources when absent.")


class Settings(BaseModel):
    """The settings of one host, all sections merged."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    serve: dict[Name, Service] = Field(default_factory=dict, description="Services, one entry each.")
    models: dict[ModelId, Download] = Field(
        default_factory=dict, description="Models to download without a service."
    )
    driver: Driver = Field(default_factory=Driver, description="The NVIDIA driver.")
    environment: Environment = Field(default_factory=Environment, description="The conda environment.")
    sources: Sources = Field(default_factory=Sources, description="Where things are fetched from.")
    access: Access = Field(default_factory=Access, description="Who reaches the services.")


# What else an inventory may hold: pyinfra's own data (connection, privileges), by prefix.
_PYINFRA_DATA = re.compile(r"^(_|ssh_|local_|chroot_|docker_|dockerssh_|winrm_|relock$)")


def merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merges data layers key by key, later over earlier; lists and scalars replace, mappings merge.

    `sources` may be a preset's name; it counts as `{"preset": name}`.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if key == "sources" and isinstance(value, str):
                value = {"preset": value}
            old = merged.get(key)
            if isinstance(old, Mapping) and isinstance(value, Mapping):
                merged[key] = merge([old, value])
            else:
                merged[key] = value
    return merged


def read(layers: Iterable[Mapping[str, Any]]) -> Settings:
    """Validates the merged data of one host.

    Args:
        layers: inventory data, `all` first, then groups, then the host.

    Raises:
        SettingsError: one sentence per wrong setting (setting, fact, fix).
    """
    data = {key: value for key, value in merge(layers).items() if not _PYINFRA_DATA.match(key)}
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        # a value that fits no member of a union is reported once per member: the last one says it best
        by_setting = {tuple(_steps(item["loc"])): _sentence(dict(item)) for item in error.errors()}
        raise SettingsError(list(by_setting.values())) from None
    problems = list(contradictions(settings))
    if problems:
        raise SettingsError(problems)
    return settings


def _steps(location: Iterable[int | str]) -> list[str]:
    """The steps to a setting from pydantic's location, which names union members and keys too."""
    noise = re.compile(r"\[key\]|bool|int|float|str|constrained-.*|function-.*")
    return [str(part) for part in location if not noise.fullmatch(str(part))]


def _sentence(error: Mapping[str, Any]) -> str:
    """One pydantic error as `setting: fact. fix.`"""
    location = _steps(error["loc"])
    setting = ".".join(location) or "settings"
    if error["type"] == "extra_forbidden":
        known = _known_names(location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f" Did you mean `{close[0]}`?" if close else f" Known here: {', '.join(known)}."
        return f"{setting}: there is no such {'setting' if len(location) > 1 else 'section'}.{hint}"
    if error["type"] == "missing":
        return f"{setting}: is missing. Set it, for example {_example(location)!r}."
    if error["type"] == "string_pattern_mismatch":
        return f"{setting}: {error['input']!r} has signs or a form not allowed here. {_fix(location)}"
    return f"{setting}: {error['input']!r} is not valid: {_lower_first(error['msg'])}. {_fix(location)}"


def _lower_first(text: str) -> str:
    text = text.removeprefix("Value error, ").rstrip(".")
    return text[:1].lower() + text[1:]


def _section_at(location: list[str]) -> type[BaseModel] | None:
    """The model that describes the settings below a location."""
    if not location:
        return Settings
    by_entry: dict[str, type[BaseModel]] = {"serve": Service, "models": Download}
    if location[0] in by_entry:
        return by_entry[location[0]] if len(location) == 2 else None
    field = Settings.model_fields.get(location[0])
    annotation = field.annotation if field and len(location) == 1 else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _known_names(location: list[str]) -> list[str]:
    section = _section_at(location)
    return list(section.model_fields) if section else []


def _example(location: list[str]) -> Any:
    section = _section_at(location[:-1])
    field = section.model_fields.get(location[-1]) if section and location else None
    return field.examples[0] if field and field.examples else "..."


def _fix(location: list[str]) -> str:
    example = _example(location)
    if example != "...":
        return f"Write it as in {example!r}."
    section = _section_at(location[:-1])
    field = section.model_fields.get(location[-1]) if section and location else None
    if field and field.description:
        return field.description
    return "Use lower-case letters, digits and dashes." if location[:1] == ["serve"] else "Correct it."


def api_key(access: Access, environment: Mapping[str, str] | None = None) -> str | None:
    """The API key, read from where the settings say; None when there is none.

    Raises:
        SettingsError: the file or variable is missing, empty, or no plain token.
    """
    environment = os.environ if environment is None else environment
    if access.api_key_env:
        where, key = (
            f"access.api_key_env: ${access.api_key_env}",
            environment.get(access.api_key_env, "").strip(),
        )
    elif access.api_key_file:
        path = Path(access.api_key_file).expanduser()
        where = f"access.api_key_file: {path}"
        try:
            key = path.read_text().strip()
        except OSError as error:
            raise SettingsError(
                [f"{where}: {error.strerror}. Write the key into that file, mode 0600."]
            ) from None
        except UnicodeDecodeError:
            key = ""
    else:
        return None
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,256}", key):
        raise SettingsError(
            [f"{where}: holds no usable key. Use 16 to 256 letters, digits or . _ ~ + / = - signs."]
        )
    return key
