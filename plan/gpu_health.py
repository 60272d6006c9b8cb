"""What the driver and the kernel say of the health of the GPUs, and what helps."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from plan import tables
from plan.probe import Probe

# "reset": the GPU alone; "reboot": its host; "look": a person; the others: nothing is done to the card.
Remedy = Literal["application", "none", "reset", "reboot", "look"]

_XID = re.compile(r"Xid \(PCI:([0-9A-Fa-f:.]+)\): (\d+)(?:, (.*))?")
# What this tool writes into the kernel log after a reset: the Xids before it are settled.
_WAS_RESET = re.compile(r"bringup has reset GPU ([0-9A-Fa-f:.]+)")
# What a driver from 570 on says is to be done, by `nvidia-smi` and in words and numbers by Xid 154.
# Source: nvmlDeviceGpuRecoveryAction_t in NVIDIA's nvml.h, and public kernel logs.
_RECOVERY: dict[str, Remedy] = {
    **{"none": "none", "reset": "reset", "gpu reset": "reset", "drain and reset": "reset"},
    **{"reboot": "reboot", "node reboot": "reboot", "drain p2p": "look"},
}
_CHANGED: dict[str, Remedy] = {"0": "none", "1": "reset", "2": "reboot", "3": "look", "4": "reset"}
_CODE_OF_CHANGE = 154


@dataclass(frozen=True)
class Ailment:
    """What ails a GPU.

    Attributes:
        gpu: its PCI address, `0000:3b:00.0`.
        uuid: the driver's name of it; "" where the driver does not show it.
        remedy: what helps.
        fact: what is wrong, a clause without a full stop.
    """

    gpu: str
    uuid: str
    remedy: Remedy
    fact: str

    @property
    def name(self) -> str:
        """What nvidia-smi takes for it."""
        return self.uuid or self.gpu


def ailments(probe: Probe) -> tuple[Ailment, ...]:
    """What ails the GPUs that a reset, a reboot or a person can help; the gravest of a GPU first."""
    gpus = {_address(gpu.get("id") or ""): gpu for gpu in _gpus(probe.smi)}
    found = [ailment for address, gpu in gpus.items() for ailment in _told(address, gpu, probe)]
    if gpus and probe.driver:
        lost = [device.address for device in probe.gpus if device.address not in gpus]
        found += [Ailment(gpu, "", "reboot", f"nvidia-smi does not show it{_why(probe)}") for gpu in lost]
    order = ("reboot", "reset", "look")
    return tuple(sorted(found, key=lambda ailment: (ailment.gpu, order.index(ailment.remedy))))


def _told(address: str, gpu: ElementTree.Element, probe: Probe) -> Iterator[Ailment]:
    """What ails one GPU that the driver shows."""
    uuid = _text(gpu, "uuid")
    remedy, words = _asked_for(gpu)
    if remedy in ("reset", "reboot", "look"):
        yield Ailment(address, uuid, remedy, f"the driver asks for {words}")
    if remedy is None:
        # a driver that says nothing itself: what it logged since the boot, or since the last reset
        for code, asked in xids(probe, address).items():
            if asked in ("reset", "reboot"):
                yield Ailment(address, uuid, asked, f"Xid {code}: {_meaning(code)}")
    if any(_text(gpu, path).lower() == "yes" for path in _PENDING):
        yield Ailment(address, uuid, "reset", "faulty memory waits to be taken out of use")
    if any(_text(gpu, path).lower() == "yes" for path in _BEYOND_REPAIR):
        yield Ailment(address, uuid, "look", "faulty memory could not be taken out of use")


def _asked_for(gpu: ElementTree.Element) -> tuple[Remedy | None, str]:
    """What the driver itself says is to be done, and in which words; None where it does not say."""
    action = _text(gpu, "gpu_recovery_action")
    if action.lower() in _RECOVERY:
        return _RECOVERY[action.lower()], repr(action)
    # drivers from 530 until 565 say it so
    said = [
        _text(gpu, f"gpu_reset_status/{name}").lower()
        for name in ("reset_required", "drain_and_reset_recommended")
    ]
    if "yes" in said:
        return "reset", "a reset"
    return ("none", "") if "no" in said else (None, "")


_PENDING = (
    "remapped_rows/remapped_row_pending",
    "retired_pages/pending_retirement",
    "retired_pages/pending_blacklist",
    "ecc_errors/channel_repair_pending",
    "ecc_errors/tpc_repair_pending",
)
_BEYOND_REPAIR = ("remapped_rows/remapped_row_failure", "ecc_errors/unrepairable_memory")


def xids(probe: Probe, address: str) -> dict[int, Remedy]:
    """Code -> remedy, of what the kernel logged of this GPU since the boot, or since its last reset."""
    found: dict[int, Remedy] = {}
    for line in probe.nvidia.log:
        done = _WAS_RESET.search(line)
        if done and _same(done[1], address):
            found.clear()
        logged = _XID.search(line)
        if logged and _same(logged[1], address):
            found[int(logged[2])] = _remedy(int(logged[2]), logged[3] or "")
    return found


def _remedy(code: int, words: str) -> Remedy:
    if code == _CODE_OF_CHANGE:
        said = re.search(r" to 0x([0-9a-fA-F]+)", words)
        return _CHANGED.get(said[1] if said else "", "look")
    return _table()[code][0] if code in _table() else "none"


def _meaning(code: int) -> str:
    if code == _CODE_OF_CHANGE:
        return "the driver has said what is to be done"
    return _table()[code][1] if code in _table() else "see NVIDIA's list of Xid errors"


@cache
def _table() -> dict[int, tuple[Remedy, str]]:
    return {row["code"]: (row["remedy"], row["meaning"]) for row in tables.read("xids")["xid"]}


def warnings(probe: Probe) -> Iterator[str]:
    """Sentences about Xid errors, a driver that does not answer, and what ails each GPU."""
    yield from _logged(probe)
    if probe.driver and probe.smi and not probe.smi.lstrip().startswith("<?xml"):
        words = probe.smi.strip().splitlines()[0].rstrip(".")
        yield f"Driver {probe.driver} is loaded, and nvidia-smi fails: {words}."
    for ailment in ailments(probe):
        yield f"GPU {ailment.gpu}: {ailment.fact}. {_advice(ailment, probe)}"
    for gpu in _gpus(probe.smi):
        if _text(gpu, "ecc_mode/current_ecc") != _text(gpu, "ecc_mode/pending_ecc"):
            address = _address(gpu.get("id") or "?")
            yield f"GPU {address}: another ECC mode is set for the next boot. Reboot the host when it suits."


def _advice(ailment: Ailment, probe: Probe) -> str:
    """What is left to do, after what was tried."""
    if ailment.remedy == "look" or ailment.name in rebooted_in_vain(probe):
        tried = "A reboot did not help. " if ailment.remedy != "look" else ""
        return f"{tried}Have the card looked at."
    if ailment.remedy == "reset" and ailment.name not in probe.nvidia.reset:
        return "It has to be reset, or its host rebooted."
    tried = "A reset did not help. " if ailment.remedy == "reset" else ""
    return f"{tried}Reboot the host; if it stays, have the card looked at."


def rebooted_in_vain(probe: Probe) -> frozenset[str]:
    """GPUs for whose sake this tool rebooted the host, which ailed all the same afterwards."""
    return frozenset(name for boot, name in probe.nvidia.rebooted_for if boot != probe.boot_id)


def healed(probe: Probe) -> tuple[str, ...]:
    """GPUs for whose sake this tool rebooted the host, which the driver shows without an ailment since."""
    ailing = {ailment.gpu for ailment in ailments(probe)}
    shown = {_address(gpu.get("id") or ""): _text(gpu, "uuid") for gpu in _gpus(probe.smi)}
    well = {name for address, uuid in shown.items() if address not in ailing for name in (address, uuid)}
    return tuple(sorted(rebooted_in_vain(probe) & well))


def _logged(probe: Probe) -> Iterator[str]:
    of_ailments = {ailment.fact.partition(":")[0] for ailment in ailments(probe)}
    logged = [found for line in probe.nvidia.log if (found := _XID.search(line))]
    codes = [int(found[2]) for found in logged]
    for code in dict.fromkeys(codes):
        times = f", {codes.count(code)} times" if codes.count(code) > 1 else ""
        places = dict.fromkeys(_address(found[1]) for found in logged if int(found[2]) == code)
        # what a reset has settled is no news, and what ails a GPU is said of that GPU
        if f"Xid {code}" not in of_ailments and any(code in xids(probe, place) for place in places):
            yield f"The kernel logged Xid {code} since boot{times}: {_meaning(code)}."


def persistence(probe: Probe) -> bool | None:
    """Whether every GPU that can keeps its state between programs; None when no driver says so."""
    modes = {_text(gpu, "persistence_mode").lower() for gpu in _gpus(probe.smi)}
    return "disabled" not in modes if modes & {"enabled", "disabled"} else None


def cut(probe: Probe) -> tuple[str, ...]:
    """The driver's names of the GPUs that are cut into instances (MIG), now or from their next reset on."""
    return tuple(
        _text(gpu, "uuid")
        for gpu in _gpus(probe.smi)
        if "enabled" in (_text(gpu, f"mig_mode/{when}_mig").lower() for when in ("current", "pending"))
    )


def _why(probe: Probe) -> str:
    return f" (the kernel says: {probe.nvidia.log[-1]})" if probe.nvidia.log else ""


def _address(text: str) -> str:
    """`00000000:3B:00.0` of nvidia-smi and `0000:3b:00` of the kernel as the bus has them."""
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if "." in rest else f"{domain[-4:]}:{rest}.0"


def _same(logged: str, address: str) -> bool:
    return _address(logged) == address


def _gpus(text: str) -> list[ElementTree.Element]:
    if not text.lstrip().startswith("<?xml") or "<!ENTITY" in text:
        return []
    try:
        return ElementTree.fromstring(text.lstrip()).findall("gpu")
    except ElementTree.ParseError:
        return []


def _text(gpu: ElementTree.Element, path: str) -> str:
    return (gpu.findtext(path) or "").strip()
