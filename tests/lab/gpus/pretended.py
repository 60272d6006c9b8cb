"""What a host shows of its GPUs: PCI functions, kernel modules, what nvidia-smi says."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from plan import gpus

CAPTURES = Path(__file__).parents[2] / "plan" / "captures"
NVIDIA_MODULES = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm")
_FIRST_OPEN_ONLY = gpus.Capability(10, 0)
_3D_CONTROLLER, _VGA_CONTROLLER, _BRIDGE = "0x030200", "0x030000", "0x068000"


@dataclass(frozen=True)
class Function:
    """A PCI function of NVIDIA's: `0000:17:00.0`, `0x20b0`, `0x030200`; `driver` is what holds it."""

    address: str
    device: str
    class_code: str
    driver: str | None = None


@dataclass(frozen=True)
class Failure:
    """How nvidia-smi fails: its words, its exit status."""

    words: str
    status: int


NOT_LOADED = Failure(
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n",
    9,
)
NO_DEVICES = Failure("No devices were found\n", 6)


@dataclass(frozen=True)
class Pretended:
    """The GPUs of a host and the state of their driver.

    Attributes:
        functions: NVIDIA's functions on the PCI bus.
        capture: what `nvidia-smi -q -x` said on the machine that is pretended.
        installed: version of the driver's user-space part; None: there is no nvidia-smi.
        modules: loaded kernel modules.
        loaded: version of the loaded nvidia module.
        open_modules: whether that module is of the open flavour.
        failure: how nvidia-smi fails, where it does.
        programs: further programs that come first in the PATH: name -> shell text.
    """

    functions: tuple[Function, ...]
    capture: str = field(repr=False)
    installed: str | None
    modules: tuple[str, ...] = ()
    loaded: str | None = None
    open_modules: bool = False
    failure: Failure | None = None
    programs: Mapping[str, str] = field(default_factory=dict)

    def without_driver(self) -> Pretended:
        """As the machine comes: GPUs on the bus, nothing installed, nothing loaded."""
        return replace(self, installed=None, failure=None)._with_modules((), None)

    def with_nouveau(self) -> Pretended:
        """As a desktop system comes: nouveau holds the GPUs."""
        return replace(self, installed=None, failure=None)._with_modules(("nouveau",), None)

    def not_loaded(self) -> Pretended:
        """The driver is installed, its module is not loaded."""
        return replace(self, failure=NOT_LOADED)._with_modules((), None)

    def mismatched(self, loaded: str) -> Pretended:
        """The module of an earlier version is still loaded, user space has been upgraded under it."""
        words = "Failed to initialize NVML: Driver/library version mismatch\n"
        version = ".".join((self.installed or "").split(".")[:2])
        failure = Failure(f"{words}NVML library version: {version}\n", 18)
        return replace(self, failure=failure)._with_modules(NVIDIA_MODULES, loaded)

    def fallen_off_the_bus(self, address: str) -> Pretended:
        """nvidia-smi no longer lists the GPU at this address; PCI still does."""
        root = ElementTree.fromstring(self.capture)
        for gpu in root.findall("gpu"):
            if _address(gpu) == address:
                root.remove(gpu)
        left = str(len(root.findall("gpu")))
        for count in root.findall("attached_gpus"):
            count.text = left
        text = ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
        return replace(self, capture=f"{text}\n")

    def with_bridges(self, device: str, count: int) -> Pretended:
        """NVSwitches beside the GPUs."""
        bridges = (Function(f"0000:{0xC0 + number:02x}:00.0", device, _BRIDGE) for number in range(count))
        return replace(self, functions=(*self.functions, *bridges))

    def with_programs(self, **programs: str) -> Pretended:
        """With further programs; an underscore in a name stands for a dash."""
        named = {name.replace("_", "-"): text for name, text in programs.items()}
        return replace(self, programs={**self.programs, **named})

    def _with_modules(self, modules: tuple[str, ...], loaded: str | None) -> Pretended:
        holder = modules[0] if modules else None
        functions = tuple(
            function if function.class_code == _BRIDGE else replace(function, driver=holder)
            for function in self.functions
        )
        return replace(self, functions=functions, modules=modules, loaded=loaded)


def of_capture(name: str, *, open_modules: bool = False) -> Pretended:
    """The machine of a capture, with its driver loaded: a file name in tests/plan/captures."""
    text = (CAPTURES / name).read_text()
    root = ElementTree.fromstring(text)
    version = root.findtext("driver_version", "").strip()
    functions = tuple(_function(gpu) for gpu in root.findall("gpu"))
    # from Blackwell on there are no others
    only_open = any(gpus.lookup(function.device).capability >= _FIRST_OPEN_ONLY for function in functions)
    whole = Pretended(functions, text, installed=version, open_modules=open_modules or only_open)
    return whole._with_modules(NVIDIA_MODULES, version)


def _function(gpu: ElementTree.Element) -> Function:
    device, vendor = gpu.findtext("pci/pci_device_id", "").strip().lower()[:4], "10de"
    # the catalogue says what the output does not: an id that was blotted out, the class in older schemas
    known = gpus.lookup(gpu.findtext("product_name", "") if device == "0000" else f"{vendor}:{device}")
    # data-centre cards have no display
    class_code = _3D_CONTROLLER if known.datacenter else _VGA_CONTROLLER
    if kind := gpu.findtext("pci/pci_sub_class", "").strip():
        class_code = f"0x03{int(kind, 16):02x}00"
    return Function(_address(gpu), f"0x{known.pci_id}", class_code)


def _address(gpu: ElementTree.Element) -> str:
    """ "00000000:17:00.0" as the kernel writes it: 0000:17:00.0."""
    return gpu.get("id", "").lower()[-12:]
