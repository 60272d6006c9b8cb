"""What a decision is made of: the host, the wish, the answer with its reasons. All frozen."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from plan.gpus import Gpu

Policy = Literal["native", "compatible"]
Preference = Literal["safe", "newest"]
Engine = Literal["vllm", "ollama"]


@dataclass(frozen=True)
class Machine:
    """What a host is. `gpus` empty: a host without a GPU. None: not known.

    `driver_works`: the driver was seen driving every GPU, whatever its lists say. `driver_borrowed`: this is
    a container, and the driver that of the computer it runs on. `modules`: the flavour of the kernel modules
    in use, "open" or "proprietary". Memory and disks in GiB; `memory_gib` is the host's.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    os: str | None = None
    glibc: str | None = None
    architecture: str = "x86_64"
    driver_works: bool = False
    driver_borrowed: bool = False
    modules: str | None = None
    memory_gib: float | None = None
    cpu_cores: int | None = None
    disk_free_gib: float | None = None


@dataclass(frozen=True)
class Wish:
    """What the operator wants. None: to be decided.

    `driver_branches`: those that the driver may be of, in support or not; `driver_version`: the very release
    that it must be; `driver_modules`: the flavour that its kernel modules must have. `gpus`: how many of the
    host's GPUs the model may use. `tensor_parallel` fixes how many share each layer.
    `lora_slots` adapters of at most `lora_rank` have a place beside the weights.
    Of Ollama alone: `parallel` requests have a KV cache each, `spread` takes every GPU even if fewer suffice.
    """

    engine: Engine = "vllm"
    model: str | None = None
    vllm: str | None = None
    torch: str | None = None
    python: str | None = None
    policy: Policy = "compatible"
    prefer: Preference = "safe"
    manage_driver: bool = True
    driver_branches: tuple[int, ...] | None = None
    driver_modules: str | None = None
    driver_version: str | None = None
    gpus: int | None = None
    tensor_parallel: int | None = None
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    kv_cache_dtype: str | None = None
    dtype: str | None = None
    enforce_eager: bool = False
    kv_cache_memory_bytes: int | None = None
    lora_slots: int = 0
    lora_rank: int = 0
    parallel: int = 1
    spread: bool = False


@dataclass(frozen=True)
class Reason:
    """Why one pin is what it is."""

    subject: str
    value: str
    because: str
    source: str


@dataclass(frozen=True)
class Failure:
    """A constraint that cannot be met, the fact that stands against it, and where the fact is from."""

    constraint: str
    fact: str
    source: str


@dataclass(frozen=True)
class DriverChoice:
    """The NVIDIA driver: kept (`version`) or to be installed (`branch`; `version` where a release is pinned).

    `modules`: "open" or "proprietary", the flavour of the kernel modules; None when a kept driver's flavour
    is not known. `repository`: NVIDIA's own name of the system's package repository, None where it has none.
    """

    action: Literal["keep", "install"]
    version: str | None = None
    branch: int | None = None
    modules: str | None = None
    fabric_manager: bool = False
    subnet_manager: bool = False
    memory_exchange: bool = False
    repository: str | None = None


@dataclass(frozen=True)
class MemoryFit:
    """Where the memory of one GPU goes, in GiB, and what context that leaves."""

    weights_gib: float
    weights_gib_per_gpu: float
    kv_gib_per_gpu: float
    reserve_gib: float
    usable_gib: float
    tensor_parallel: int
    pipeline_parallel: int
    max_model_len: int
    kv_tokens: int
    gpu_memory_utilization: float
    disk_gib: float


@dataclass(frozen=True)
class Decision:
    """The one stack that works, with the reason of every pin.

    `torch_index` and `vllm_index`: the index that alone has that build; None: the ordinary package index.
    `pins`: the closure as it resolved on `resolved_before`. `environment_gib`: what the
    installed packages take on disk. With Ollama there is no stack of Python packages.
    """

    accelerator: Literal["cuda", "cpu"]
    engine: Engine
    driver: DriverChoice | None
    cuda_tag: str | None = None
    torch: str | None = None
    torch_index: str | None = None
    vllm: str | None = None
    vllm_index: str | None = None
    python: str | None = None
    transformers: str | None = None
    accelerate: str | None = None
    modelscope: str | None = None
    pins: dict[str, str] = field(default_factory=dict)
    resolved_before: str | None = None
    environment_gib: float = 0.0
    flags: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    memory: MemoryFit | None = None
    warnings: tuple[str, ...] = ()
    why: tuple[Reason, ...] = ()

    @property
    def ok(self) -> bool:
        """True: there is a stack that works."""
        return True

    def to_json(self) -> dict[str, Any]:
        """The stable shape that docs/decisions.md describes."""
        return {"ok": True, **asdict(self)}


@dataclass(frozen=True)
class Refusal:
    """Nothing works as things are: what fails, and the smallest changes after which something does."""

    failed: tuple[Failure, ...]
    fixes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """False: there is no stack that works."""
        return False

    def to_json(self) -> dict[str, Any]:
        """The stable shape that docs/decisions.md describes."""
        return {
            "ok": False,
            "failed": [asdict(failure) for failure in self.failed],
            "fixes": list(self.fixes),
        }
