"""What a host is, parsed from the text of the one probe (`roles/host/probe.sh`)."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from packaging.version import InvalidVersion, Version

from plan import probe_driver, probe_gateway, probe_mounts, probe_ollama, smi
from plan.errors import ProbeError
from plan.probe_driver import InstalledDriver
from plan.probe_gateway import InstalledGateway
from plan.probe_models import InstalledModel, models, parts
from plan.probe_ollama import InstalledOllama

# Stands in a conda prefix that was made to its end; a prefix without it does not count.
COMPLETE = ".bringup-complete"
# Stands where something is being installed, with the boot in which it was begun.
AT_WORK = ".bringup-at-work"

# DCGM in all its parts, for every CUDA.
DCGM = (
    "datacenter-gpu-manager-4-core",
    "datacenter-gpu-manager-4-proprietary",
    *(f"datacenter-gpu-manager-4-cuda{major}" for major in (11, 12, 13)),
    *(f"datacenter-gpu-manager-4-proprietary-cuda{major}" for major in (11, 12, 13)),
)
# The distribution packages that a plan may ask for; the probe looks for these.
PACKAGES = (
    *("ca-certificates", "curl", "libnuma1", "numactl-libs", "gcc", "g++", "gcc-c++", "openssl", "zstd"),
    *("aria2", "nftables", "tar", "curl-minimal"),
    *DCGM,
)
# A package -> what does its work under another name, and cannot be installed beside it.
OTHER_NAMES = {"curl": ("curl-minimal",)}


@dataclass(frozen=True)
class Disk:
    """The file system under a path. `free_gib` is what root may still use."""

    device: str
    free_gib: float


@dataclass(frozen=True)
class PciDevice:
    """An NVIDIA PCI device: address, device id as `0x2330`, class as `0x030200`."""

    address: str
    device_id: str
    class_code: str

    @property
    def is_gpu(self) -> bool:
        """3D and VGA controllers are GPUs; bridges (NVSwitch), audio and USB functions are not."""
        return self.class_code.startswith("0x03")


@dataclass(frozen=True)
class Path:
    """A path of ours on the host: mode as `644`, owner as `root:root`, sha256 of a file's content."""

    mode: str
    owner: str
    kind: str
    sha256: str | None = None


@dataclass(frozen=True)
class Unit:
    """A systemd unit's state, in systemd's own words."""

    active: str
    sub: str
    enabled: str
    result: str
    main_pid: int
    restarts: int
    needs_reload: bool

    @property
    def serves(self) -> bool:
        """Whether it runs, will after a reboot, and runs by the unit file that is there.

        A static unit is another's to start: udev's, for the driver's daemon on Ubuntu.
        """
        started = self.enabled in ("enabled", "static")
        return self.active == "active" and started and not self.needs_reload


@dataclass(frozen=True)
class InstalledEnvironment:
    """A conda prefix: its conda records (file names without `.json`), its Python distributions."""

    conda: frozenset[str]
    distributions: Mapping[str, str]


@dataclass(frozen=True)
class Probe:
    """Everything a decision about a host needs, and what of ours is already there."""

    user_id: int
    boot_id: str
    hostname: str
    os_id: str
    os_version: str
    os_like: tuple[str, ...]
    os_codename: str
    os_name: str
    kernel: str
    architecture: str
    glibc: str | None
    virtualization: str
    systemd: int | None
    cpu_count: int
    cpu_flags: frozenset[str]
    memory_gib: float
    memory_available_gib: float
    disks: Mapping[str, Disk]
    addresses: tuple[str, ...]
    pci: tuple[PciDevice, ...]
    driver: str | None
    modules: tuple[str, ...]
    smi: str
    secure_boot: str
    listening: Mapping[int, str]
    gpu_holders: tuple[str, ...]
    packages: Mapping[str, str]
    user_exists: bool
    paths: Mapping[str, Path]
    units: Mapping[str, Unit]
    environments: Mapping[str, InstalledEnvironment]
    models: Mapping[str, InstalledModel]
    ollama: InstalledOllama = field(default_factory=InstalledOllama)
    mounts: Mapping[str, float | None] = field(default_factory=dict)
    # addresses with their prefix lengths
    networks: tuple[str, ...] = ()
    model_facts: str = ""
    model_pins: str = ""
    checks: Mapping[str, str] = field(default_factory=dict)
    burn_in: str = ""
    gateway: InstalledGateway = field(default_factory=InstalledGateway)
    disks_turn: bool | None = None
    # on which our services listen by their unit files, whether or not they run: port -> unit
    unit_ports: Mapping[int, str] = field(default_factory=dict)
    nvidia: InstalledDriver = probe_driver.NOTHING
    # where a model grows, or was cut: directory -> GiB that it takes
    model_parts: Mapping[str, float] = field(default_factory=dict)
    stamp_time: str = ""
    state: str = ""
    text: str = field(default="", repr=False, compare=False)

    @property
    def os(self) -> str:
        """The operating system in one word, as the tables name it: `debian12`, `ubuntu22.04`, `rhel9`."""
        major = self.os_version.split(".")[0]
        if self.os_id in ("rocky", "almalinux", "centos", "ol", "rhel"):
            return f"rhel{major}"
        version = self.os_version if self.os_id in ("ubuntu", "openeuler") else major.lstrip("vV")
        return f"{self.os_id}{version}"

    @property
    def gpus(self) -> tuple[PciDevice, ...]:
        """The GPUs on the PCI bus, whether or not a driver knows them."""
        return tuple(device for device in self.pci if device.is_gpu)


def parse(text: str) -> Probe:
    """Parses the probe's output.

    Raises:
        ProbeError: the output is cut short or lacks what no host lacks; one sentence.
    """
    blocks = _blocks(text)
    if "end" not in blocks:
        raise ProbeError(["probe: its answer broke off. Run again; if it stays, run with -vvv."])
    try:
        return _probe(blocks, text)
    except (IndexError, ValueError, KeyError) as error:
        raise ProbeError([f"probe: its answer has an unknown form ({error!r}). Report it."]) from error


def _probe(blocks: Mapping[str, list[str]], text: str) -> Probe:
    release = dict(_assignments(blocks["os"]))
    memory = {line.split(":")[0]: int(line.split()[1]) / 2**20 for line in blocks["memory"]}
    virtualization = "".join(blocks["virt"]) or "none"
    return Probe(
        user_id=int(blocks["identity"][0]),
        boot_id=blocks["identity"][1],
        hostname=blocks["identity"][2],
        os_id=release.get("ID", "linux").lower(),
        os_version=release.get("VERSION_ID", ""),
        os_like=tuple(release.get("ID_LIKE", "").split()),
        os_codename=release.get("VERSION_CODENAME", ""),
        os_name=release.get("PRETTY_NAME", "Linux"),
        kernel=blocks["kernel"][0],
        architecture=blocks["kernel"][1],
        glibc=blocks["glibc"][0].split()[-1] if blocks["glibc"] else None,
        virtualization=virtualization,
        systemd=int(re.findall(r"\d+", blocks["systemd"][0])[0]) if blocks["systemd"] else None,
        cpu_count=int(blocks["cpu"][0]),
        cpu_flags=frozenset(blocks["cpu"][1].split(":", 1)[1].split())
        if len(blocks["cpu"]) > 1
        else frozenset(),
        memory_gib=memory["MemTotal"],
        memory_available_gib=memory["MemAvailable"],
        disks={
            path: Disk(device, int(kib) / 2**20)
            for path, device, kib in (line.split() for line in blocks["disk"])
        },
        addresses=tuple(line.split()[1].split("/")[0] for line in blocks["addresses"]),
        pci=tuple(PciDevice(line.split()[0], *line.split()[2:4]) for line in blocks["pci"]),
        driver=_driver(blocks),
        modules=tuple(blocks["modules"]),
        smi=smi.document("\n".join(blocks["smi"])),
        secure_boot=" ".join(blocks["secure_boot"]),
        listening=_holders(_listening(blocks["listening"])),
        gpu_holders=tuple(blocks["gpu_holders"]),
        packages=dict(_packages(blocks["packages"])),
        user_exists=bool(blocks["user"]),
        paths=_paths(blocks),
        units=dict(_units(blocks["units"])),
        environments=_environments(blocks["environments"]),
        models=models(blocks["models"]),
        ollama=probe_ollama.parse(blocks.get("ollama", [])),
        mounts=probe_mounts.parse(blocks.get("mounts", [])),
        networks=tuple(line.split()[1] for line in blocks["addresses"]),
        model_pins="\n".join(blocks.get("model_pins", [])),
        model_facts="\n".join(blocks.get("model_facts", [])),
        checks=dict(line.split(maxsplit=1) for line in blocks.get("checks", []) if " " in line.strip()),
        burn_in="\n".join(blocks.get("burn_in", [])),
        gateway=probe_gateway.parse(blocks),
        disks_turn="1" in blocks["rotational"] if blocks.get("rotational") else None,
        unit_ports=dict(_unit_ports(blocks.get("unit_ports", []))),
        nvidia=probe_driver.parse(blocks),
        model_parts=parts(blocks.get("model_parts", [])),
        stamp_time="".join(blocks.get("stamp", [])),
        state="".join(f"{line}\n" for line in blocks.get("state", [])),
        text=text,
    )


def _blocks(text: str) -> dict[str, list[str]]:
    blocks: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("@@"):
            current = blocks.setdefault(line[2:], [])
        else:
            current.append(line)
    # a unit block is told apart by its empty lines; everywhere else they mean nothing
    return {
        name: lines if name in ("units", "smi") else [x for x in lines if x] for name, lines in blocks.items()
    }


def _assignments(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, found, value = line.partition("=")
        if found:
            yield name, value.strip().strip("\"'")


def _driver(blocks: Mapping[str, list[str]]) -> str | None:
    """The loaded module's version; /proc/driver has it too, where /sys is hidden (containers)."""
    if blocks["driver"]:
        return blocks["driver"][0].strip()
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", "\n".join(blocks["driver_file"]))
    return found.group(1) if found else None


def _listening(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Listening TCP ports with the holder's name where it is known."""
    for line in lines:
        fields = line.split()
        if fields[0] == "proc":
            if len(fields) > 4 and fields[4] == "0A":
                yield int(fields[2].rsplit(":", 1)[1], 16), "?"
        else:
            # children that share a socket stand before their parent
            holders = re.findall(r'\("([^"]+)",pid=(\d+)', line)
            pids = " ".join(f"(pid {pid})" for _, pid in holders)
            yield int(fields[3].rsplit(":", 1)[1]), f"{holders[0][0]} {pids}" if holders else "?"


def _holders(found: Iterable[tuple[int, str]]) -> dict[int, str]:
    """Port -> its holder; all of them where several listen there, be it on addresses of their own."""
    holders: dict[int, list[str]] = {}
    for port, holder in found:
        holders.setdefault(port, []).append(holder)
    return {port: ", ".join(dict.fromkeys(names)) for port, names in holders.items()}


def _packages(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, status, *version = line.split()
        if status[1:2] == "i" and version:
            yield name, version[0]


def _paths(blocks: Mapping[str, list[str]]) -> dict[str, Path]:
    hashes = {path: sha for sha, path in (line.split(maxsplit=1) for line in blocks["hashes"])}
    paths = {}
    for line in blocks["paths"]:
        mode, owner, kind, path = line.split(maxsplit=3)
        paths[path] = Path(mode, owner, kind, hashes.get(path))
    return paths


def _unit_ports(lines: list[str]) -> Iterator[tuple[int, str]]:
    for line in lines:
        port, _, unit = line.partition(" ")
        if port.isdigit():
            yield int(port), unit


def _units(lines: list[str]) -> Iterator[tuple[str, Unit]]:
    for text in "\n".join(lines).split("\n\n"):
        values = dict(_assignments(text.splitlines()))
        if "Id" in values:
            yield (
                values["Id"],
                Unit(
                    active=values.get("ActiveState", ""),
                    sub=values.get("SubState", ""),
                    enabled=values.get("UnitFileState", ""),
                    result=values.get("Result", ""),
                    main_pid=int(values.get("MainPID", 0)),
                    restarts=int(values.get("NRestarts", 0)),
                    needs_reload=values.get("NeedDaemonReload") == "yes",
                ),
            )


def _environments(lines: list[str]) -> dict[str, InstalledEnvironment]:
    environments: dict[str, InstalledEnvironment] = {}
    conda: set[str] = set()
    distributions: dict[str, str] = {}
    for line in lines:
        kind, _, value = line.partition(" ")
        if kind == "prefix":
            conda, distributions = set(), {}
            environments[value] = InstalledEnvironment(frozenset(), distributions)
            prefix = value
        elif kind == "conda" and value != "*.json":
            conda.add(value.removesuffix(".json"))
            environments[prefix] = InstalledEnvironment(frozenset(conda), distributions)
        elif kind == "dist" and value != "*.dist-info":
            name, _, version = value.removesuffix(".dist-info").partition("-")
            distributions[canonical_name(name)] = version
    return environments


def missing_packages(names: Iterable[str], installed: Container[str]) -> list[str]:
    """The packages of which neither they nor others that do their work are installed."""
    return [name for name in names if not any(one in installed for one in (name, *OTHER_NAMES.get(name, ())))]


def same_version(installed: str | None, pinned: str) -> bool:
    """Whether these are one version, as PEP 440 has it: 1.0 is 1.0.0, and 2.9.0 is not 2.9.0+cpu."""
    try:
        return installed is not None and Version(installed) == Version(pinned)
    except InvalidVersion:
        return False


def plain_name(requirement: str) -> str:
    """The normalised name in a requirement such as `vllm[audio]==1.0`."""
    return canonical_name(requirement.partition("==")[0].partition("[")[0])


def canonical_name(name: str) -> str:
    """A distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()
