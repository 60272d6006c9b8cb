"""What one host will get: frozen, printable, JSON. Decided in `plan.decide`."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plan.answer import MemoryFit, Reason
from plan.archives import Archive
from plan.bundle_plan import BundlePlan, BundleServer
from plan.burn_in import BurnInPlan
from plan.chat_template import ChatTemplate
from plan.floors import Floor
from plan.gateway import GatewayPlan
from plan.model_plan import DownloadPlan, ModelPlan
from plan.nvidia_plan import DriverPlan
from plan.packages import Tool
from plan.probe import Probe
from plan.probe_ollama import blobs, whole_name
from plan.replacing import Replacing
from plan.sources import Addresses

CONDA_PREFIX = "/opt/bringup/conda"
OLLAMA_STORES = "/etc/bringup/ollama-store"  # first line: the store; further ones: where it was before
MODELFILES = "/etc/bringup/modelfiles"
USER = "bringup"
# Environments are read-only to services; else three processes would compile the same modules at every start.
BYTECODE = "/var/cache/bringup/pycache"


def environment_prefix(name: str) -> str:
    """Where conda keeps the environment of that name."""
    return f"{CONDA_PREFIX}/envs/{name}"


def environment_directory(name: str) -> str:
    """Where what the environment of that name shall hold is written down on the host."""
    return f"/etc/bringup/environments/{name}"


@dataclass(frozen=True)
class EnvironmentPlan:
    """The conda environment and what uv installs into it.

    Attributes:
        installer_urls: where the conda installer is, the first choice first; all have the same bytes.
        explicit_lock: conda's `@EXPLICIT` text; `records` are the names it leaves in conda-meta.
        pins: distribution -> exact version, per part: "models", "torch", "vllm".
        constraints: distribution -> version, for what the pins bring along.
        only_from: distribution -> the index that alone may provide it.
        certificates: the host's bundle of trusted certificate authorities.
        locked: the lock's closure, a requirements file with hashes; empty without a lock.
    """

    name: str
    python: str
    installer_urls: tuple[str, ...]
    installer_sha256: str
    explicit_lock: str
    records: frozenset[str]
    uv: Tool
    pins: Mapping[str, Mapping[str, str]]
    constraints: Mapping[str, str]
    only_from: Mapping[str, str]
    addresses: Addresses
    certificates: str
    locked: str = ""

    @property
    def prefix(self) -> str:
        """The environment's directory on the host."""
        return environment_prefix(self.name)

    @property
    def directory(self) -> str:
        """Where what the environment shall hold is written down on the host."""
        return environment_directory(self.name)

    @property
    def project_file(self) -> str:
        """The planned Python packages, as a project that uv reads."""
        return f"{self.directory}/pyproject.toml"

    @property
    def constraints_file(self) -> str:
        """The versions that what the pins bring along is held to."""
        return f"{self.directory}/constraints.txt"

    @property
    def lock_file(self) -> str:
        """The closure of these pins, with hashes; other pins have another lock."""
        return f"{self.directory}/requirements-{self.digest}.txt"

    @property
    def checked_file(self) -> str:
        """The figures of the torch check of these pins."""
        return f"{self.directory}/torch-{self.digest}.json"

    @property
    def digest(self) -> str:
        """Twelve hex digits that change whenever a pin, a conda package or the lock does."""
        pins = {part: dict(versions) for part, versions in self.pins.items()}
        held = [sorted(self.records), pins, dict(self.constraints), self.uv.version]
        held += [self.locked] if self.locked else []
        text = json.dumps(held, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class TagPlan(ModelPlan):
    """A model in Ollama's store, which Ollama pulls itself; `revision` and `endpoint` mean nothing to it.

    `layers`: digests of all its files, as the lock has them; empty where any will do. `manifest`: sha256 of
    what names them there.
    """

    store: str
    layers: tuple[str, ...] = field(default=(), kw_only=True)
    manifest: str = field(default="", kw_only=True)

    @property
    def directory(self) -> str:
        """The store: its models share files, so none has a directory of its own."""
        return self.store

    def there(self, probe: Probe) -> bool:
        """Whether the store has its manifest and every file that the manifest names, by size; as pulled."""
        name = whole_name(self.model)
        same = not self.layers or blobs(self.layers) == probe.ollama.layers.get(name)
        return same and name in probe.ollama.models and name not in probe.ollama.created


@dataclass(frozen=True)
class CreatedPlan(TagPlan):
    """A model of Ollama's store that is made there from a Modelfile.

    `base`: the tag to pull before. `made_of`: what its FROM and ADAPTER lead to, as far as that may change:
    commits of models, digests of the base as the lock has them.
    """

    modelfile: str
    base: str | None
    made_of: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with the Modelfile and with the weights that it names."""
        return hashlib.sha256("\n".join((self.modelfile, *self.made_of)).encode()).hexdigest()[:12]

    @property
    def file(self) -> str:
        """Where the Modelfile lies on the host."""
        return f"{MODELFILES}/{whole_name(self.model).replace('/', '--')}"

    def there(self, probe: Probe) -> bool:
        """Whether the store has it, made from this very Modelfile and these weights."""
        name = whole_name(self.model)
        return name in probe.ollama.models and probe.ollama.created.get(name) == self.digest


@dataclass(frozen=True)
class OllamaPlan:
    """What Ollama needs on a host beside its services, and what nothing needs any more.

    Attributes:
        archive: None when Ollama shall serve nothing here.
        store: the directory of the models.
        tags: what the store shall have.
        removed_tags: what shall go from a store that stays.
        damaged_blobs: files of the store that a pull would take as they are.
        unused_blobs: files of no model that shall go.
        https_proxy: through which release and models are fetched.
        removed_paths: old versions; the whole of it when nothing is served any more.
    """

    archive: Archive | None
    store: str
    tags: tuple[TagPlan, ...]
    removed_tags: tuple[str, ...]
    damaged_blobs: tuple[str, ...]
    unused_blobs: tuple[str, ...]
    removed_paths: tuple[str, ...]
    https_proxy: str | None = None


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of a service, and the name that clients ask for."""

    name: str
    model: ModelPlan


@dataclass(frozen=True)
class ServicePlan:
    """One service: a unit, the server's flags, and where it answers.

    `listen` is what the settings say, an address or a network; `address` and `port` are where clients reach
    it on this host. The engine itself listens on `inner_address` and `inner_port`: the same, or loopback
    behind the front (`fronted`), which asks for the key and, with `tls`, speaks https.
    """

    name: str
    engine: str
    model: ModelPlan
    served_name: str
    listen: str
    address: str
    port: int
    flags: Mapping[str, Any]
    environment: Mapping[str, str]
    start_timeout_seconds: int
    inner_address: str
    inner_port: int
    fronted: bool
    tls: bool
    stop_timeout_seconds: int = 0
    memory: MemoryFit | None = None
    unproven: tuple[str, ...] = ()
    replacing: Replacing | None = None
    adapters: tuple[Adapter, ...] = ()
    chat_template: ChatTemplate | None = None

    @property
    def models(self) -> tuple[ModelPlan, ...]:
        """All that it reads from the disk: the model, then its adapters."""
        return (self.model, *(adapter.model for adapter in self.adapters))

    @property
    def served_names(self) -> tuple[str, ...]:
        """What clients may ask for: the model, then its adapters."""
        return (self.served_name, *(adapter.name for adapter in self.adapters))

    @property
    def second(self) -> "ServicePlan | None":
        """The server that answers while this one is replaced; None where the old one is stopped first."""
        way = self.replacing
        if way is None or way.port is None:
            return None
        environment = {**self.environment, **way.variables}
        return dataclasses.replace(self, inner_port=way.port, environment=environment, replacing=None)

    @property
    def unit(self) -> str:
        """The systemd unit's name."""
        return f"{self.engine}-{self.name}.service"

    @property
    def url(self) -> str:
        """Base URL of its OpenAI-style API as clients reach it, without the /v1."""
        return f"http{'s' if self.tls else ''}://{literal(self.address)}:{self.port}"

    @property
    def inner(self) -> str:
        """Address and port of the engine itself."""
        return f"{literal(self.inner_address)}:{self.inner_port}"

    @property
    def inner_url(self) -> str:
        """Base URL of the engine itself, for programs on the host."""
        return f"http://{self.inner}"

    @property
    def needs_key(self) -> bool:
        """Whether clients have to show the key."""
        return self.fronted


@dataclass(frozen=True)
class BatchPlan:
    """A file of requests that is answered on the host.

    Attributes:
        service: the vLLM that answers, which nobody else reaches.
        input: the requests, on the host; `source` is the file on the operator's machine that is sent there.
        output: the answers.
    """

    service: ServicePlan
    input: str
    output: str
    concurrency: int
    wait: bool
    source: str | None = None

    @property
    def name(self) -> str:
        """The entry of `serve`."""
        return self.service.name

    @property
    def unit(self) -> str:
        """The systemd unit's name."""
        return self.service.unit


def literal(address: str) -> str:
    """An address as a URL has it."""
    return f"[{address}]" if ":" in address else address


@dataclass(frozen=True)
class HostPlan:
    """What one host will get. It holds no secret.

    `model_facts`: the text of the file that keeps what was read of models that are in no table.
    `gpu_floors`: what each GPU should reach, in the order of the PCI bus; None where no figure is known.
    """

    host: str
    os: str
    hardware: str
    accelerator: str
    driver: DriverPlan
    package_manager: str
    base_packages: tuple[str, ...]
    apt_sources: str | None
    user: str
    environment: EnvironmentPlan | None
    models: tuple[ModelPlan, ...]
    services: tuple[ServicePlan, ...]
    removed_services: tuple[str, ...]
    removed_models: tuple[str, ...]
    removed_environments: tuple[str, ...]
    why: tuple[Reason, ...]
    warnings: tuple[str, ...]
    ollama: OllamaPlan | None = None
    downloads: DownloadPlan = field(default_factory=lambda: DownloadPlan(()))
    model_facts: str | None = None
    gateway: GatewayPlan | None = None
    removed_gateway: tuple[str, ...] = ()
    systemd: int = 0
    gpu_floors: tuple[Floor | None, ...] = ()
    burn_in: BurnInPlan | None = None
    bundle: BundlePlan | None = None
    bundle_server: BundleServer | None = None
    batches: tuple[BatchPlan, ...] = ()

    @property
    def engines(self) -> tuple[ServicePlan, ...]:
        """What serves clients, and what answers batches."""
        return (*self.services, *(batch.service for batch in self.batches))

    def to_json(self) -> str:
        """The plan as JSON text, ordered, for reports and for comparison."""
        return json.dumps(dataclasses.asdict(self), default=sorted, indent=1, sort_keys=True)
