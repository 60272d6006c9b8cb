"""The files that a host with pretended GPUs has, below one folder: what `switch.sh` binds and links."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.gpus.pretended import Function, Pretended

HOME = "/var/lib/pretended-gpus"
_NVIDIA_SMI = (Path(__file__).parent / "nvidia-smi.sh").read_text()
# Field of `nvidia-smi --query-gpu` -> where the XML has it.
_FIELDS = {
    "name": "product_name",
    "gpu_name": "product_name",
    "uuid": "uuid",
    "gpu_uuid": "uuid",
    "serial": "serial",
    "pci.bus_id": "pci/pci_bus_id",
    "memory.total": "fb_memory_usage/total",
    "memory.reserved": "fb_memory_usage/reserved",
    "persistence_mode": "persistence_mode",
    "mig.mode.current": "mig_mode/current_mig",
    "mig.mode.pending": "mig_mode/pending_mig",
    "ecc.mode.current": "ecc_mode/current_ecc",
    "fabric.state": "fabric/state",
    "fabric.status": "fabric/status",
}


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


def tree(gpus: Pretended) -> dict[str, str | Link]:
    """Path -> content. Folders: pci, module, driver; smi: what nvidia-smi says; bin: programs."""
    files: dict[str, str | Link] = {
        "modules": "".join(_proc_modules(gpus)),
        "module/.keep": "",
        "driver/.keep": "",
    }
    for function in gpus.functions:
        files |= {f"pci/{function.address}/{name}": text for name, text in _pci(function).items()}
    files |= dict(_loaded(gpus))
    if gpus.installed:
        files |= {f"smi/{name}": text for name, text in _smi(gpus).items()}
        files["bin/nvidia-smi"] = _NVIDIA_SMI
    return files | {f"bin/{name}": f"#!/bin/sh\n{text}\n" for name, text in gpus.programs.items()}


def _pci(function: Function) -> dict[str, str | Link]:
    shown: dict[str, str | Link] = {
        "vendor": "0x10de\n",
        "device": f"{function.device}\n",
        "class": f"{function.class_code}\n",
    }
    if function.driver:
        shown["driver"] = Link(f"../../drivers/{function.driver}")
    return shown


def _loaded(gpus: Pretended) -> Iterator[tuple[str, str]]:
    for module in gpus.modules:
        yield f"module/{module}/refcnt", "0\n"
        if gpus.loaded:
            yield f"module/{module}/version", f"{gpus.loaded}\n"
    if gpus.loaded:
        yield "driver/nvidia/version", _proc_version(gpus)


def _proc_modules(gpus: Pretended) -> Iterator[str]:
    for module in gpus.modules:
        yield f"{module} 1048576 0 - Live 0x0000000000000000\n"


def _proc_version(gpus: Pretended) -> str:
    """/proc/driver/nvidia/version, in the forms of the two flavours."""
    flavour = "Open Kernel Module for x86_64" if gpus.open_modules else "x86_64 Kernel Module"
    built = "Release Build  (root@builder)  " if gpus.open_modules else ""
    date = "Tue Jun  6 22:20:39 UTC 2023"
    return (
        f"NVRM version: NVIDIA UNIX {flavour}  {gpus.loaded}  {built}{date}\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14+deb12u1) \n"
    )


def _smi(gpus: Pretended) -> dict[str, str | Link]:
    root = ElementTree.fromstring(gpus.capture)
    cards = root.findall("gpu")
    names = [
        f"GPU {index}: {_text(card, 'product_name')} (UUID: {_text(card, 'uuid')})"
        for index, card in enumerate(cards)
    ]
    said: dict[str, str | Link] = {
        "xml": gpus.capture,
        "list": _column(names),
        "addresses": _column(card.get("id", "") for card in cards),
        "fields/index": _column(str(index) for index, _ in enumerate(cards)),
        "fields/count": _column(str(len(cards)) for _ in cards),
        "fields/driver_version": _column(str(gpus.installed) for _ in cards),
    }
    for name, path in _FIELDS.items():
        said[f"fields/{name}"] = _column(_text(card, path) for card in cards)
    if gpus.failure:
        said |= {"failure": gpus.failure.words, "status": f"{gpus.failure.status}\n"}
    return said


def _column(words: Iterator[str] | list[str]) -> str:
    return "".join(f"{word}\n" for word in words)


def _text(card: ElementTree.Element, path: str) -> str:
    return (card.findtext(path) or "[N/A]").strip()
