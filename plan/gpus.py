"""NVIDIA GPUs: from a PCI id or the name people use to what a decision needs to know of the card."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from plan import tables

NVIDIA_VENDOR = "10de"

# What CUDA sees of the memory that a card is sold with, where nobody published it: on data-centre cards ECC
# takes up to 6.25 % and the driver 2 % (A10G: 24 GB, 22.03 GiB); on others only the driver takes some.
_LEAST_SHARE_WITH_ECC = 0.915
_LEAST_SHARE_WITHOUT_ECC = 0.95
# HBM has ECC of its own beside the memory that is sold (A100, H100, B200: 99 %).
_LEAST_SHARE_OF_HBM = 0.98
# The driver's own part of what nvidia-smi calls the total (A100 80GB: 869 of 81920 MiB).
_USUAL_SHARE_KEPT = 0.012
# Boards of another size under the same id (a 2080 Ti with 22 GB) differ by far more.
_SAME_BOARD = 0.06


class UnknownGpuError(ValueError):
    """No such GPU in the catalogue. The text is one sentence for the operator."""


class Capability(NamedTuple):
    """CUDA compute capability, for example 8.9."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> "Capability":
        """Reads "8.9".

        Raises:
            ValueError: the text is no compute capability.
        """
        match = re.fullmatch(r"(\d{1,2})\.(\d)", text.strip())
        if not match:
            raise ValueError(f"{text!r} is no compute capability. Write it as in 8.9.")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


_FORM_FACTOR = r"(?:sxm|pcie|hbm|dgxs|fhhl)\d?"

_ARCHITECTURES = (
    (Capability(3, 0), "Kepler"),
    (Capability(5, 0), "Maxwell"),
    (Capability(6, 0), "Pascal"),
    (Capability(7, 0), "Volta"),
    (Capability(7, 5), "Turing"),
    (Capability(8, 0), "Ampere"),
    (Capability(8, 9), "Ada"),
    (Capability(9, 0), "Hopper"),
    (Capability(10, 0), "Blackwell"),
    (Capability(13, 0), "newer than Blackwell"),
)


_HBM_GENERATIONS = {
    Capability(6, 0),
    Capability(7, 0),
    Capability(8, 0),
    Capability(9, 0),
    Capability(10, 0),
    Capability(10, 3),
}


@dataclass(frozen=True)
class Gpu:
    """One GPU of a host.

    `memory_gib` is what CUDA reports as total memory, `first_driver` the first driver release that lists the
    card (None: any that this catalogue knows of), `note` what the operator should know about the lookup.
    """

    name: str
    pci_id: str | None
    capability: Capability
    memory_gib: float
    datacenter: bool
    nvswitch: bool = False
    first_driver: str | None = None
    grace: bool = False
    mig: bool = False
    known: bool = True
    memory_verified: bool = True
    source: str = ""
    note: str = ""

    @property
    def architecture(self) -> str:
        """The marketing name of the generation, for example "Ada"."""
        return [name for since, name in _ARCHITECTURES if since <= self.capability][-1]

    def with_memory_mib(self, memory_mib: int, reserved_mib: int | None = None) -> "Gpu":
        """The same card with the memory that its driver reports.

        CUDA sees what the driver does not keep to itself. Where the driver does not say how much that is,
        the catalogue's figure stands for a board of the usual size.
        """
        kept_mib = reserved_mib if reserved_mib is not None else round(memory_mib * _USUAL_SHARE_KEPT)
        seen_gib = round((memory_mib - kept_mib) / 1024, 2)
        usual = self.memory_verified and abs(seen_gib / self.memory_gib - 1) < _SAME_BOARD
        if reserved_mib is None and usual:
            return self
        return replace(self, memory_gib=seen_gib, memory_verified=True)


@dataclass(frozen=True)
class _Row:
    gpu: Gpu
    names: tuple[str, ...]
    sold_memory_gb: int


def _plain(name: str) -> str:
    """A name without what people leave out: vendor, brand, spaces, dashes, case."""
    text = re.sub(r"[-_()/]", " ", name.lower())
    words = [word for word in text.split() if word not in {"nvidia", "geforce", "tesla", "quadro", "gpu"}]
    return re.sub(r"gib\b", "gb", "".join(words))


def _row(raw: dict[str, Any]) -> _Row:
    total = raw.get("total_gib")
    capability = Capability.parse(raw["capability"])
    share = _LEAST_SHARE_WITH_ECC if raw["datacenter"] else _LEAST_SHARE_WITHOUT_ECC
    if raw["datacenter"] and capability in _HBM_GENERATIONS:
        share = _LEAST_SHARE_OF_HBM
    gpu = Gpu(
        name=raw["name"],
        pci_id=raw["pci_id"],
        capability=capability,
        memory_gib=total or round(raw["memory_gb"] * share, 2),
        datacenter=raw["datacenter"],
        nvswitch=raw.get("nvswitch", False),
        first_driver=raw.get("first_driver"),
        grace=raw.get("grace", False),
        memory_verified=total is not None,
        source=raw["source"],
    )
    names = tuple(_plain(name) for name in (raw["name"], *raw.get("also", ())))
    return _Row(gpu, names, raw["memory_gb"])


@lru_cache(maxsize=1)
def _rows() -> tuple[_Row, ...]:
    raw = tables.read("gpus")
    return tuple(_row(entry) for entry in raw["gpu"])


def catalogue() -> tuple[Gpu, ...]:
    """Every GPU of the catalogue, oldest compute capability first."""
    return tuple(row.gpu for row in _rows())


@lru_cache(maxsize=512)
def lookup(name_or_pci_id: str) -> Gpu:
    """The GPU of that PCI id ("10de:26b9", "0x26b910de", "26b9") or name ("L40S", "NVIDIA GeForce RTX 4090").

    A name that several cards share (V100 with 16 or 32 GB) gives the one with the least memory and a note.

    Raises:
        UnknownGpuError: no such card, with the nearest names.
    """
    text = name_or_pci_id.strip()
    device = _device_id(text)
    if device:
        for row in _rows():
            if row.gpu.pci_id == device:
                return row.gpu
        raise UnknownGpuError(
            f"PCI id {NVIDIA_VENDOR}:{device} is not in the catalogue. Name the card by its model, "
            "or add it to plan/gpus.toml."
        )
    found = next((rows for rows in map(_named, _spellings(text)) if rows), None)
    if found is None:
        raise UnknownGpuError(_no_such_gpu(text))
    return _least_memory(text, found)


def from_driver(
    *,
    name: str,
    pci_device_id: str | None,
    memory_mib: int | None,
    compute_capability: str | None,
    reserved_mib: int | None = None,
    mig: bool | None = None,
) -> Gpu:
    """The GPU that a driver reports, completed from the catalogue; of a newer card its word is taken.

    Raises:
        UnknownGpuError: the card is not in the catalogue and the driver did not say enough.
    """
    for key in (pci_device_id, name):
        try:
            gpu = lookup(key) if key else None
        except UnknownGpuError:
            continue
        if gpu and memory_mib:
            gpu = gpu.with_memory_mib(memory_mib, reserved_mib)
        if gpu:
            return replace(gpu, note="", mig=bool(mig))
    if not compute_capability or not memory_mib:
        missing = "compute capability" if not compute_capability else "memory size"
        raise UnknownGpuError(
            f"{name!r} (PCI id {pci_device_id or 'unknown'}) is not in the catalogue and the driver did not "
            f"report its {missing}. Add the card to plan/gpus.toml."
        )
    return Gpu(
        name=name.removeprefix("NVIDIA "),
        pci_id=_device_id(pci_device_id or ""),
        capability=Capability.parse(compute_capability),
        memory_gib=round((memory_mib * (1 - _USUAL_SHARE_KEPT) - (reserved_mib or 0)) / 1024, 2),
        mig=bool(mig),
        datacenter="GeForce" not in name and "RTX" not in name,
        known=False,
        source="what the driver reports",
        note=f"{name} is not in the catalogue: decided from what the driver reports.",
    )


def _spellings(text: str) -> Iterator[str]:
    """The name as written, and with the brand that people leave out: "4090" for "RTX 4090"."""
    plain = _plain(text)
    yield plain
    if re.search(r"\dg$", plain):
        yield plain + "b"
    for brand in ("rtx", "gtx"):
        if re.match(r"a?\d{4}", plain):
            yield brand + plain


def _named(wanted: str) -> list[_Row]:
    """The rows of a name: by an alias, or by their own names with memory size or form factor left out."""
    aliased = [row for row in _rows() if wanted in row.names[1:]]
    return aliased or [row for row in _rows() if any(_extends(name, wanted) for name in row.names)]


def _device_id(text: str) -> str | None:
    """The four hex digits of an NVIDIA device id, however a tool writes it; None for a name."""
    lowered = text.lower()
    for pattern in (
        rf"{NVIDIA_VENDOR}:([0-9a-f]{{4}})",
        rf"(?:0x)?([0-9a-f]{{4}}){NVIDIA_VENDOR}",
        r"0x([0-9a-f]{4})",
    ):
        match = re.fullmatch(pattern, lowered)
        if match:
            return match[1]
    known = re.fullmatch(r"[0-9a-f]{4}", lowered) and any(row.gpu.pci_id == lowered for row in _rows())
    return lowered if known else None


def _extends(name: str, wanted: str) -> bool:
    """Whether a catalogue name is the wanted one with its memory size or form factor added."""
    rest = name.removeprefix(wanted) if name.startswith(wanted) else "-"
    return bool(re.fullmatch(rf"({_FORM_FACTOR}|[1-9]\d{{0,2}}gb)*", rest)) or wanted == re.sub(
        _FORM_FACTOR, "", name
    )


def _least_memory(text: str, found: list[_Row]) -> Gpu:
    chosen = min(found, key=lambda row: row.sold_memory_gb)
    sizes = sorted({row.sold_memory_gb for row in found})
    if len(sizes) == 1:
        return chosen.gpu
    listed = ", ".join(str(size) for size in sizes[:-1]) + f" and {sizes[-1]}"
    note = (
        f"{text} is sold with {listed} GB of memory; {sizes[0]} GB is assumed. "
        f"Write for example '{text} {sizes[-1]}GB' for the other."
    )
    return replace(chosen.gpu, note=note)


def _no_such_gpu(text: str) -> str:
    names = {name: row.gpu.name for row in _rows() for name in row.names}
    close = [names[name] for name in difflib.get_close_matches(_plain(text), names, n=3, cutoff=0.6)]
    hint = f" Did you mean {', '.join(dict.fromkeys(close))}?" if close else " Name it as nvidia-smi does."
    return f"GPU {text!r} is not in the catalogue.{hint}"


def oldest(gpus: Iterable[Gpu]) -> Gpu:
    """The GPU of the lowest compute capability."""
    return min(gpus, key=lambda gpu: gpu.capability)


def newest(gpus: Iterable[Gpu]) -> Gpu:
    """The GPU of the highest compute capability."""
    return max(gpus, key=lambda gpu: gpu.capability)
