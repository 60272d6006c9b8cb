"""What `nvidia-smi -q -x` says of a host, in any of its schema versions."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, dataclass
from typing import Any

from plan import gpus
from plan.errors import ProbeError

_EXAMPLE = "Save one with: nvidia-smi -q -x"
# The schema has said N/A in many ways; a value of this form means that there is none.
_ABSENT = re.compile(r"^(n/?a|not found|unknown.*|\[.*\]|requested functionality.*|none|-)?$", re.IGNORECASE)


# Nothing is read from these, and drivers write them so that no XML parser takes them: names of processes as
# their bytes are, and tags of the clocks that do not match. Source: common-workflow-language/cwltool#1910,
# lollipopkit/flutter_server_box#286.
_NOT_READ = re.compile(r"<(supported_clocks|processes|accounted_processes)>.*?</\1>", re.DOTALL)
_DOCUMENT = re.compile(r"(<\?xml.*</nvidia_smi_log>)", re.DOTALL)


@dataclass(frozen=True)
class SmiGpu:
    """One GPU. `pci_device_id` as "10de:26b9"; `memory_mib` what the board has, before any MIG
    partition, and `reserved_mib` what the driver keeps of it.

    `mig` is True when the card is cut into instances, False when it is whole, None when it cannot be cut.
    `compute_capability` is the catalogue's where the output does not have it, None where neither knows.
    """

    name: str
    uuid: str | None
    pci_device_id: str | None
    memory_mib: int | None
    reserved_mib: int | None
    compute_capability: str | None
    mig: bool | None


@dataclass(frozen=True)
class SmiReport:
    """What one output says. `cuda_version` is the newest CUDA that the driver's user-mode part brings."""

    driver_version: str
    cuda_version: str | None
    gpus: tuple[SmiGpu, ...]

    def to_json(self) -> dict[str, Any]:
        """The stable shape that docs/decisions.md describes."""
        return asdict(self)


def parse(xml_text: str) -> SmiReport:
    """Reads the output of `nvidia-smi -q -x`.

    Raises:
        ProbeError: it is no such output, or says no driver version; one sentence.
    """
    root = _root(xml_text)
    driver = _text(root, "driver_version")
    if driver is None or not re.fullmatch(r"\d{3}(\.\d+){1,2}", driver):
        raise ProbeError([f"nvidia-smi reports no driver version. {_EXAMPLE}, on a host whose driver runs."])
    return SmiReport(driver, _cuda_version(root), tuple(_gpu(element) for element in root.findall("gpu")))


def document(text: str) -> str:
    """The XML of an output without what is not read of it, and without warnings before and after it.

    A text without XML, as a driver that fails prints it, is given back as it is.
    """
    found = _DOCUMENT.search(text)
    return _NOT_READ.sub("", found[1]) if found else text


def memory_use_mib(xml_text: str) -> tuple[tuple[int, int], ...]:
    """Of every GPU what is in use of its memory, and what there is; one that does not say is in full use."""
    try:
        elements = _root(xml_text).findall("gpu")
    except ProbeError:
        return ()
    paths = ("fb_memory_usage/used", "fb_memory_usage/total")
    found = [[_mebibytes(_text(element, path)) for path in paths] for element in elements]
    return tuple((total if used is None else used, total) for used, total in ((u, t or 0) for u, t in found))


def _root(xml_text: str) -> ElementTree.Element:
    # An output declares its document type but never entities of its own; one that does is no output.
    if "<!ENTITY" in xml_text:
        raise ProbeError([f"This declares XML entities, which nvidia-smi never does. {_EXAMPLE}."])
    try:
        root = ElementTree.fromstring(document(xml_text).lstrip("\ufeff \t\r\n"))
    except ElementTree.ParseError as error:
        raise ProbeError([f"This is no output of nvidia-smi -q -x ({error}). {_EXAMPLE}."]) from None
    if root.tag != "nvidia_smi_log":
        raise ProbeError([f"This is XML of <{root.tag}>, not of <nvidia_smi_log>. {_EXAMPLE}."])
    return root


def _text(element: ElementTree.Element, path: str) -> str | None:
    found = element.find(path)
    text = (found.text or "").strip() if found is not None else ""
    return None if _ABSENT.match(text) else text


def _cuda_version(root: ElementTree.Element) -> str | None:
    """Older schemas say `cuda_version`; from driver 610 on it is named after the user-mode driver."""
    for tag in ("cuda_version", "cuda_umd_version", "cuda_driver_version"):
        text = _text(root, tag)
        if text and re.fullmatch(r"\d{1,2}\.\d", text):
            return text
    return None


def _gpu(element: ElementTree.Element) -> SmiGpu:
    name = _text(element, "product_name")
    if name is None:
        raise ProbeError([f"nvidia-smi names no product for GPU {element.get('id', '?')}. Check its driver."])
    device = _device_id(_text(element, "pci/pci_device_id"))
    return SmiGpu(
        name=name,
        uuid=_text(element, "uuid"),
        pci_device_id=device,
        memory_mib=_mebibytes(_text(element, "fb_memory_usage/total")),
        reserved_mib=_mebibytes(_text(element, "fb_memory_usage/reserved")),
        compute_capability=_capability(element) or _from_catalogue(device, name),
        mig=_mig(element),
    )


def _device_id(text: str | None) -> str | None:
    """ "26B910DE" or "0x26B910DE" as "10de:26b9"."""
    match = re.fullmatch(r"(?:0x)?([0-9A-Fa-f]{4})([0-9A-Fa-f]{4})", text or "")
    return f"{match[2]}:{match[1]}".lower() if match else None


def _mebibytes(text: str | None) -> int | None:
    match = re.fullmatch(r"(\d+) ?(MiB|MB)", text or "")
    return int(match[1]) if match else None


def _capability(element: ElementTree.Element) -> str | None:
    for tag in ("compute_cap", "compute_capability", "cuda_compute_capability"):
        text = _text(element, tag)
        if text and re.fullmatch(r"\d{1,2}\.\d", text):
            return text
    return None


def _from_catalogue(device: str | None, name: str) -> str | None:
    for key in (device, name):
        try:
            if key:
                return str(gpus.lookup(key).capability)
        except gpus.UnknownGpuError:
            continue
    return None


def _mig(element: ElementTree.Element) -> bool | None:
    mode = _text(element, "mig_mode/current_mig")
    return None if mode is None else mode.lower() == "enabled"
