"""What the driver and the kernel say of the health of the GPUs."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from plan.probe import Probe

# What a few Xid codes mean and what helps; the rest is named by its number.
# Source: NVIDIA, "XID Errors" (docs.nvidia.com/deploy/xid-errors).
_XIDS = {
    13: "a program's fault: look at what ran",
    31: "a program's fault: look at what ran",
    43: "a program was stopped",
    45: "a program was stopped",
    48: "an uncorrectable memory error: reset or reboot, and watch the card",
    63: "memory was remapped: reboot when it suits",
    64: "memory could not be remapped: have the card replaced",
    74: "an NVLink error: check the bridge or the switch",
    79: "the GPU has fallen off the bus: reboot; if it stays, check seat, power and cooling",
    94: "a contained memory error: restart what uses the GPU",
    95: "an uncontained memory error: reset or reboot",
    119: "the GPU's own processor does not answer: reboot",
    120: "the GPU's own processor failed: reboot",
}


def warnings(probe: Probe) -> Iterator[str]:
    """Sentences about Xid errors, a driver that does not answer, memory that waits for a reset, lost GPUs."""
    yield from _xids(probe)
    if probe.driver and probe.smi and not probe.smi.lstrip().startswith("<?xml"):
        words = probe.smi.strip().splitlines()[0].rstrip(".")
        yield f"Driver {probe.driver} is loaded, and nvidia-smi fails: {words}."
    gpus = _gpus(probe.smi)
    for gpu in gpus:
        address = (gpu.get("id") or "?").lower().removeprefix("0000")
        pending = [_text(gpu, path) for path in ("remapped_rows/remapped_row_pending", _RETIRED)]
        if any(word.lower() == "yes" for word in pending):
            yield f"GPU {address}: faulty memory waits to be taken out of use. Reboot the host when it suits."
        if _text(gpu, "remapped_rows/remapped_row_failure").lower() == "yes":
            yield f"GPU {address}: faulty memory could not be remapped. Have the card replaced."
        if _text(gpu, "ecc_mode/current_ecc") != _text(gpu, "ecc_mode/pending_ecc"):
            yield f"GPU {address}: another ECC mode is set for the next boot. Reboot the host when it suits."
    if gpus and len(gpus) < len(probe.gpus):
        yield (
            f"nvidia-smi shows {len(gpus)} of the {len(probe.gpus)} GPUs on the PCI bus"
            f"{_why(probe)}. Reboot the host; if it stays, have the card looked at."
        )


_RETIRED = "retired_pages/pending_retirement"


def persistence(probe: Probe) -> bool | None:
    """Whether every GPU that can keeps its state between programs; None when no driver says so."""
    modes = {_text(gpu, "persistence_mode").lower() for gpu in _gpus(probe.smi)}
    return "disabled" not in modes if modes & {"enabled", "disabled"} else None


def _xids(probe: Probe) -> Iterator[str]:
    codes = [int(m[1]) for line in probe.nvidia.log if (m := re.search(r"Xid \([^)]*\): (\d+)", line))]
    for code in dict.fromkeys(codes):
        times = f", {codes.count(code)} times" if codes.count(code) > 1 else ""
        meaning = _XIDS.get(code, "see NVIDIA's list of Xid errors")
        yield f"The kernel logged Xid {code} since boot{times}: {meaning}."


def _why(probe: Probe) -> str:
    return f" (the kernel says: {probe.nvidia.log[-1]})" if probe.nvidia.log else ""


def _gpus(text: str) -> list[ElementTree.Element]:
    if not text.lstrip().startswith("<?xml") or "<!ENTITY" in text:
        return []
    try:
        return ElementTree.fromstring(text.lstrip()).findall("gpu")
    except ElementTree.ParseError:
        return []


def _text(gpu: ElementTree.Element, path: str) -> str:
    return (gpu.findtext(path) or "").strip()
