"""What the driver and the kernel say of the health of the GPUs, as sentences."""

import dataclasses
import re
from pathlib import Path

import pytest

from plan import gpu_health
from plan.probe import PciDevice, parse
from plan.probe_driver import InstalledDriver
from tests import probes

BARE = parse(probes.answer(probes.BARE))
SMI = (Path(__file__).parent / "captures" / "tesla-t4-v11.xml").read_text()
ONE = dataclasses.replace(
    BARE, smi=SMI, pci=(PciDevice("0000:00:1e.0", "0x1eb8", "0x030200"),), driver="515.105.01"
)
FALLEN = "NVRM: Xid (PCI:0000:3b:00): 79, pid=1187, name=python, GPU has fallen off the bus."


def said(**changes: object) -> list[str]:
    return list(gpu_health.warnings(dataclasses.replace(ONE, **changes)))  # type: ignore[arg-type]


CAPTURES = sorted((Path(__file__).parent / "captures").glob("*.xml"))


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_of_healthy_gpus_nothing_is_said(capture: Path) -> None:
    """Real machines in order, from driver 460 to 595, in every schema."""
    text = capture.read_text()
    ids = re.findall(r'<gpu id="0000([^"]+)">', text)
    assert ids
    pci = tuple(PciDevice(address.lower(), "0x1eb8", "0x030200") for address in ids)
    assert said(smi=text, pci=pci) == []


def test_an_xid_since_boot_is_named_with_what_helps() -> None:
    assert said(nvidia=InstalledDriver({}, log=(FALLEN, FALLEN))) == [
        "The kernel logged Xid 79 since boot, 2 times: the GPU has fallen off the bus; if that stays, check "
        "seat, power and cooling."
    ]
    (unknown,) = said(nvidia=InstalledDriver({}, log=("NVRM: Xid (PCI:0000:3b:00): 999, pid=1",)))
    assert "Xid 999 since boot: see NVIDIA's list" in unknown


def test_a_gpu_on_the_bus_that_the_driver_does_not_show_is_missed() -> None:
    two = (*ONE.pci, PciDevice("0000:00:05.0", "0x1eb8", "0x030200"))
    (_, missed) = said(pci=two, nvidia=InstalledDriver({}, log=(FALLEN,)))
    assert missed.startswith("GPU 0000:00:05.0: nvidia-smi does not show it (the kernel says: NVRM: Xid ")
    assert missed.endswith("Reboot the host; if it stays, have the card looked at.")


def test_memory_that_waits_for_a_reset_is_told() -> None:
    rows = "<remapped_rows><remapped_row_pending>Yes</remapped_row_pending></remapped_rows></gpu>"
    (sentence,) = said(smi=SMI.replace("</gpu>", rows))
    assert sentence == (
        "GPU 0000:00:1e.0: faulty memory waits to be taken out of use. It has to be reset, or its "
        "host rebooted."
    )


def test_persistence_is_what_every_gpu_says() -> None:
    assert gpu_health.persistence(BARE) is None
    off = SMI.replace("<persistence_mode>Enabled", "<persistence_mode>Disabled")
    on = off.replace("<persistence_mode>Disabled", "<persistence_mode>Enabled")
    assert gpu_health.persistence(dataclasses.replace(ONE, smi=off)) is False
    assert gpu_health.persistence(dataclasses.replace(ONE, smi=on)) is True
