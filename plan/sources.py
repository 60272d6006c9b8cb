"""Where everything that a host fetches comes from: a preset, changed by the settings."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plan import conda, places, tables
from plan.answer import Decision
from plan.errors import SettingsError
from plan.sections import Sources

# Built against one torch build each: from another index they bring another CUDA, and fail at import.
TORCH_FAMILY = ("torch", "torchvision", "torchaudio")

CONDA_FORGE = "https://conda.anaconda.org/conda-forge"


@dataclass(frozen=True)
class Addresses:
    """The sources of Python and conda packages.

    Attributes:
        wheels: the package index; None leaves each tool its own default.
        wheels_links: pages of wheels, beside the index.
        only_from: distribution -> the index that alone may provide it.
        closed: there is a bundle: no index is asked.
    """

    conda_channel: str
    wheels: str | None
    wheels_extra: tuple[str, ...]
    wheels_links: tuple[str, ...]
    only_from: Mapping[str, str]
    closed: bool = False

    @property
    def index_options(self) -> list[str]:
        """uv's options for these sources; none at all leaves uv its own default."""
        options = ["--no-index"] if self.closed else []
        options += ["--default-index", self.wheels] if self.wheels else []
        for url in self.wheels_extra:
            options += ["--index", url]
        for url in self.wheels_links:
            options += ["--find-links", url]
        return options


@dataclass(frozen=True)
class Installer:
    """A pinned installer: where it is, the first choice first, and the sha256 it must have."""

    urls: tuple[str, ...]
    sha256: str


@functools.cache
def preset(name: str) -> Mapping[str, Any]:
    """The addresses of a preset of `mirrors.toml`; a row without one means the tool's own default."""
    table = tables.read("mirrors")
    return {key: row["url"] for key, row in table[name].items() if row.get("url")}


def address(sources: Sources, name: str) -> str | None:
    """The setting, or the preset's value, without a closing slash."""
    address = getattr(sources, name) or preset(sources.preset).get(name)
    return address.rstrip("/") if address else None


def model_places(sources: Sources) -> tuple[places.Place, ...]:
    """Where models come from, the first choice first."""
    wanted = sources.models or preset(sources.preset).get("models") or "https://www.modelscope.cn"
    return tuple(map(places.place, [wanted] if isinstance(wanted, str) else wanted))


def models_endpoint(sources: Sources) -> str:
    """The first place of models, as text."""
    return str(model_places(sources)[0])


def addresses(sources: Sources, stack: Decision) -> Addresses:
    """The sources of one environment.

    torch and vLLM builds for one CUDA lie in indexes of their own, which then alone may provide them. Who
    offers wheels of his own (`wheels_links`) and names no such index gets both from there.
    """
    only_from: dict[str, str] = {}
    own_wheels = bool(sources.wheels_links)
    if stack.torch_index and (sources.torch or not own_wheels):
        base = address(sources, "torch")
        index = f"{base}/{stack.cuda_tag}" if base else stack.torch_index
        only_from |= dict.fromkeys(TORCH_FAMILY, index)
    if stack.vllm_index and (sources.vllm or not own_wheels):
        base = address(sources, "vllm")
        public = stack.vllm or ""
        version, _, variant = public.partition("+")
        only_from["vllm"] = f"{base}/{version}/{variant}" if base else stack.vllm_index
    return Addresses(
        conda_channel=address(sources, "conda_channel") or CONDA_FORGE,
        wheels=address(sources, "wheels"),
        wheels_extra=tuple(sources.wheels_extra),
        wheels_links=tuple(sources.wheels_links),
        only_from=only_from,
        closed=sources.bundle is not None,
    )


def installer(sources: Sources, architecture: str) -> Installer:
    """The Miniforge installer: the pinned release, from the preset's place or from the settings' URL."""
    pinned = conda.installer(architecture)
    if sources.conda_installer:
        return Installer((sources.conda_installer,), sources.conda_installer_sha256 or pinned.sha256)
    # a mirror may keep the newest release only: the origin is asked after it
    templates = (preset(sources.preset)["conda_installer"], preset("default")["conda_installer"])
    return Installer(tuple(dict.fromkeys(pinned.url(template) for template in templates)), pinned.sha256)


def explicit_lock(lock_file: str | None, python: str, architecture: str, channel: str) -> str:
    """conda's `@EXPLICIT` text: the operator's own file, or the built-in lock of this Python.

    Raises:
        SettingsError: the file is missing, is no explicit lock, or has a line without a hash.
    """
    if lock_file is None:
        return conda.explicit_lock(python, architecture, channel)
    path = Path(lock_file).expanduser()
    try:
        text = path.read_text()
    except OSError as error:
        raise SettingsError([f"environment.lock_file: {path}: {error.strerror}. Correct the path."]) from None
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    good = re.compile(r"(https?|file)://[A-Za-z0-9._~%+/:=@!-]+\.(conda|tar\.bz2)#(sha256:)?[0-9a-f]{32,64}")
    if "@EXPLICIT" not in lines or len(lines) < 2:
        raise SettingsError([f"environment.lock_file: {path} is no explicit conda lock: it lacks @EXPLICIT."])
    for line in lines:
        if line != "@EXPLICIT" and not good.fullmatch(line):
            raise SettingsError(
                [f"environment.lock_file: {path}: {line!r} is no URL with a hash (URL#sha256)."]
            )
    return text


def records(lock: str) -> frozenset[str]:
    """The names that a lock's packages have in conda-meta: file names without their endings."""
    urls = (line.partition("#")[0] for line in lock.splitlines() if "://" in line)
    return frozenset(re.sub(r"\.(conda|tar\.bz2)$", "", url.rsplit("/", 1)[1]) for url in urls)
