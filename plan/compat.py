"""The compatibility tables, loaded once: CUDA and drivers, torch, vLLM, operating systems, architectures."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from packaging.version import InvalidVersion, Version

from plan import tables
from plan.gpus import Capability

ORDINARY_INDEX = "ordinary"
TORCH_INDEX = "https://download.pytorch.org/whl"


@lru_cache(maxsize=4096)
def version(text: str) -> Version:
    """A parsed version; drivers ("535.104.05"), CUDA ("12.1"), Python and packages alike.

    Raises:
        ValueError: the text is no version.
    """
    try:
        return Version(text)
    except InvalidVersion:
        raise ValueError(f"{text!r} is no version. Write it as in 1.2.3.") from None


@dataclass(frozen=True)
class Cuda:
    """A CUDA version: `native_driver` brings it itself, `floor` is the oldest driver its major runs on."""

    version: str
    native_driver: str
    floor: str
    source: str
    verified: bool = True


@dataclass(frozen=True)
class Branch:
    """A branch of the NVIDIA driver, with the CUDA it brings and the GPUs it serves."""

    branch: int
    cuda: str
    status: str
    oldest_capability: Capability
    newest_capability: Capability
    source: str
    ends: str = ""
    verified: bool = True

    @property
    def maintained(self) -> bool:
        """Whether it is a production or long-term branch still in support."""
        return self.status in {"production", "long-term"}


@dataclass(frozen=True)
class TorchBuild:
    """One build of a torch release: its CUDA tag, where it lies, which GPUs it holds machine code for."""

    tag: str
    index: str
    capabilities: tuple[Capability, ...]
    source: str
    cuda: str = ""
    verified: bool = True

    @property
    def url(self) -> str | None:
        """The index it lies on; None for the ordinary package index."""
        return None if self.index == ORDINARY_INDEX else f"{TORCH_INDEX}/{self.tag}"


@dataclass(frozen=True)
class Torch:
    """A torch release."""

    version: str
    released: str
    python: tuple[str, ...]
    glibc: str
    triton: str
    builds: tuple[TorchBuild, ...]
    source: str


@dataclass(frozen=True)
class VllmBuild:
    """One build of a vLLM release; `variant` is empty for the one on the ordinary package index."""

    variant: str
    index: str
    capabilities: tuple[Capability, ...]
    architectures: tuple[str, ...]
    source: str
    cuda: str = ""
    glibc: str = ""
    verified: bool = True

    @property
    def url(self) -> str | None:
        """The index it lies on; None for the ordinary package index."""
        return None if self.index == ORDINARY_INDEX else self.index


@dataclass(frozen=True)
class Vllm:
    """A vLLM release: its torch pin, the Pythons and the C library its closure resolved for, its pins."""

    version: str
    released: str
    torch: str
    python: tuple[str, ...]
    glibc: str
    builds: tuple[VllmBuild, ...]
    source: str
    pins: dict[str, str] = field(default_factory=dict)
    blocked: str = ""
    resolved_before: str = ""
    glibc_mixture_of_experts: str = ""


@dataclass(frozen=True)
class GpuRule:
    """vLLM releases, `since` to `until`, that some GPUs cannot run ("fails") or may not ("risk")."""

    capabilities: tuple[Capability, ...]
    effect: str
    fact: str
    source: str
    since: str = ""
    until: str = ""

    def covers(self, vllm: str, capability: Capability) -> bool:
        """Whether the rule speaks of this release on this GPU."""
        return (
            capability in self.capabilities
            and (not self.since or version(self.since) <= version(vllm))
            and (not self.until or version(vllm) <= version(self.until))
        )


@dataclass(frozen=True)
class System:
    """An operating system: its C library and NVIDIA's driver repository for it, if there is one."""

    name: str
    glibc: str
    source: str
    repository: str = ""
    also: tuple[str, ...] = ()
    verified: bool = True


@dataclass(frozen=True)
class Architecture:
    """A model architecture: the vLLM releases that know it, and the first transformers that does."""

    names: tuple[str, ...]
    vllm: str
    source: str
    family: str = ""
    vllm_last: str = ""
    transformers: str = ""
    mixture_of_experts: bool = False
    turing: bool = True


@dataclass(frozen=True)
class Quantization:
    """What a quantization asks of the GPU."""

    name: str
    capability: Capability
    source: str
    since: str = "0"
    weight_only_below: Capability | None = None


@dataclass(frozen=True)
class Triton:
    """The assembler that a Triton release brings: `ptxas_newest` from compute capability `newest_from` on."""

    version: str
    ptxas: str
    ptxas_newest: str
    newest_from: Capability
    source: str


def _frozen(raw: dict[str, Any]) -> dict[str, Any]:
    """A TOML table with lists as tuples, dates as text and compute capabilities parsed."""
    out: dict[str, Any] = {}
    for key, value in raw.items():
        if key == "capabilities":
            out[key] = tuple(Capability.parse(item) for item in value)
        elif key in {
            "capability",
            "oldest_capability",
            "newest_capability",
            "weight_only_below",
            "newest_from",
        }:
            out[key] = Capability.parse(value)
        elif isinstance(value, list):
            out[key] = tuple(value)
        else:
            out[key] = value.isoformat() if hasattr(value, "isoformat") else value
    return out


@lru_cache(maxsize=1)
def cudas() -> tuple[Cuda, ...]:
    """CUDA versions, oldest first."""
    rows = [Cuda(**row) for row in tables.read("compat-cuda")["cuda"]]
    return tuple(sorted(rows, key=lambda row: version(row.version)))


@lru_cache(maxsize=1)
def branches() -> tuple[Branch, ...]:
    """Driver branches, oldest first."""
    rows = [Branch(**_frozen(row)) for row in tables.read("compat-cuda")["branch"]]
    return tuple(sorted(rows, key=lambda row: row.branch))


@lru_cache(maxsize=1)
def torches() -> dict[str, Torch]:
    """torch releases by version, oldest first."""
    rows = []
    for raw in tables.read("compat-torch")["torch"]:
        builds = tuple(TorchBuild(**_frozen(build)) for build in raw["builds"])
        rows.append(Torch(**(_frozen(raw) | {"builds": builds})))
    return {row.version: row for row in sorted(rows, key=lambda row: version(row.version))}


@lru_cache(maxsize=1)
def tritons() -> tuple[Triton, ...]:
    """Triton releases whose assembler was looked at, oldest first."""
    rows = [Triton(**_frozen(row)) for row in tables.read("compat-torch")["triton"]]
    return tuple(sorted(rows, key=lambda row: version(row.version)))


@lru_cache(maxsize=1)
def vllms() -> dict[str, Vllm]:
    """vLLM releases by version, newest first."""
    rows = []
    for raw in tables.read("compat-vllm")["vllm"]:
        builds = tuple(VllmBuild(**_frozen(build)) for build in raw["builds"])
        rows.append(Vllm(**(_frozen(raw) | {"builds": builds})))
    return {row.version: row for row in sorted(rows, key=lambda row: version(row.version), reverse=True)}


@lru_cache(maxsize=1)
def gpu_rules() -> tuple[GpuRule, ...]:
    """What is known of vLLM releases on particular GPUs beyond the machine code in the wheel."""
    return tuple(GpuRule(**_frozen(row)) for row in tables.read("compat-vllm")["rule"])


@lru_cache(maxsize=1)
def systems() -> dict[str, System]:
    """Operating systems by name, their compatible ones included."""
    found: dict[str, System] = {}
    for raw in tables.read("compat-systems")["system"]:
        system = System(**_frozen(raw))
        for name in (system.name, *system.also):
            found[name] = system
    return found


@lru_cache(maxsize=256)
def system(name: str) -> System | None:
    """The system of a name: "ubuntu22.04", "Rocky 9.4", "kylin10-sp3"; None when it is not in the table.

    Releases of the RHEL and Debian families differ by their major number alone.
    """
    plain = re.sub(r"[\s_-]+", "", name.lower())
    plain = re.sub(r"^(redhat|redhatenterpriselinux)(?=\d)", "rhel", plain)
    found = systems().get(plain)
    if found is None:
        match = re.match(r"[a-z]+\d+", plain)
        found = systems().get(match[0]) if match else None
    return found


@lru_cache(maxsize=1)
def architectures() -> dict[str, Architecture]:
    """Model architectures by the class name in config.json."""
    rows = [Architecture(**_frozen(row)) for row in tables.read("compat-architectures")["architecture"]]
    return {name: row for row in rows for name in row.names}


def without_float16() -> tuple[frozenset[str], str]:
    """The architectures that vLLM does not start in float16, and the source of that."""
    (row,) = tables.read("compat-architectures")["no_float16"]
    return frozenset(row["names"]), row["source"]


@lru_cache(maxsize=1)
def _quantizations() -> tuple[Quantization, ...]:
    return tuple(Quantization(**_frozen(raw)) for raw in tables.read("compat-architectures")["quantization"])


@lru_cache(maxsize=512)
def quantization(name: str, vllm: str) -> Quantization | None:
    """What a vLLM release asks of the GPU for a quantization named as in config.json; None if not known."""
    rows = [row for row in _quantizations() if row.name == name and version(row.since) <= version(vllm)]
    return max(rows, key=lambda row: version(row.since), default=None)


@lru_cache(maxsize=64)
def cuda(cuda_version: str) -> Cuda:
    """The row of a CUDA version.

    Raises:
        KeyError: it is not in the table.
    """
    for row in cudas():
        if row.version == cuda_version:
            return row
    raise KeyError(cuda_version)


@lru_cache(maxsize=512)
def branch_of(driver: str) -> Branch:
    """The branch of a driver version; of one that is not in the table, the nearest older branch.

    Raises:
        ValueError: the driver is older than every branch of the table.
    """
    major = version(driver).major
    older = [row for row in branches() if row.branch <= major]
    if not older:
        raise ValueError(
            f"Driver {driver} is older than {branches()[0].branch}, the oldest branch of the tables."
        )
    return older[-1]


def native_cuda(driver: str) -> str:
    """The CUDA version that a driver brings itself."""
    return branch_of(driver).cuda


def triton_row(triton: str) -> Triton:
    """The newest Triton row that is not newer than the release; the oldest row for older releases."""
    rows = [row for row in tritons() if version(row.version) <= version(triton)]
    return rows[-1] if rows else tritons()[0]
