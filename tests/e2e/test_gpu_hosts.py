"""Hosts that pretend to have GPUs: what the probe sees of them, and what `--dry` says that they would get.

The hosts share this computer's kernel and have no GPU; nothing here ever computed on one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from plan import probe
from plan.probe import PACKAGES, Probe
from roles.host import facts
from tests.e2e.test_lab_machines import own_lab
from tests.lab import gpus, machines
from tests.lab.layout import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

HOST = "lab-1"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = own_lab(tmp_path_factory.mktemp("lab"), second_octet=140)
    try:
        machines.up(1, hubs=False, lab=lab)
        yield lab
    finally:
        machines.clean(lab)


def probed(lab: Lab) -> Probe:
    """What the probe makes of the host."""
    return probe.parse(machines.run(HOST, facts.script(PACKAGES), timeout_seconds=60, lab=lab).stdout)


def test_a_pretended_gpu_is_seen_on_the_bus_in_the_kernel_and_by_its_driver(lab: Lab) -> None:
    gpus.put_on(HOST, gpus.of_capture("tesla-t4-v11.xml"), lab=lab)
    seen = probed(lab)
    assert [(gpu.device_id, gpu.class_code) for gpu in seen.gpus] == [("0x1eb8", "0x030200")]
    assert (seen.driver, set(seen.modules)) == (
        "515.105.01",
        {"nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm"},
    )
    assert seen.smi == (gpus.pretended.CAPTURES / "tesla-t4-v11.xml").read_text().rstrip("\n")


def test_a_reboot_keeps_the_gpus_or_brings_what_comes_after_it(lab: Lab) -> None:
    card = gpus.of_capture("tesla-t4-v11.xml")
    gpus.put_on(HOST, card.with_nouveau(), after_reboot=card, lab=lab)
    before = probed(lab)
    assert (before.driver, before.modules, before.smi) == (None, ("nouveau",), "")
    for _ in range(2):
        machines.power_off(HOST, lab=lab)
        machines.boot(HOST, lab=lab)
        after = probed(lab)
        assert after.boot_id != before.boot_id
        assert (after.driver, after.gpus) == ("515.105.01", before.gpus)


def test_a_host_whose_gpus_are_taken_off_is_as_it_was(lab: Lab) -> None:
    gpus.take_off(HOST, lab=lab)
    before = probed(lab)
    with gpus.pretending(HOST, gpus.of_capture("tesla-t4-v11.xml").mismatched("510.47.03"), lab=lab):
        assert probed(lab).driver == "510.47.03"
    left = machines.run(
        HOST, "mount | grep pretended; ls -d /sys/module /usr/local/bin/* 2>/dev/null", lab=lab
    ).stdout
    after = probed(lab)
    assert (after.pci, after.driver, after.modules, after.smi, left) == (before.pci, None, (), "", "")


def test_nvidia_smi_answers_the_questions_that_people_ask(lab: Lab) -> None:
    gpus.put_on(HOST, gpus.of_capture("tesla-t4-v11.xml"), lab=lab)

    def said(arguments: str) -> str:
        done = machines.run(HOST, f"nvidia-smi {arguments}; echo $?", lab=lab)
        return done.stdout

    assert said("-L") == "GPU 0: Tesla T4 (UUID: GPU-d37e67a5-91dd-3774-a5cb-99096249601a)\n0\n"
    query = "--query-gpu=index,driver_version,memory.total --format=csv,noheader"
    assert said(query) == "0, 515.105.01, 15360 MiB\n0\n"
    assert said(f"{query},nounits") == "0, 515.105.01, 15360\n0\n"
    assert said("-pm 1").startswith("Enabled persistence mode for GPU 00000000:00:1E.0.")
    assert "<persistence_mode>Enabled<" in said("-q -x")
    gpus.put_on(HOST, gpus.of_capture("tesla-t4-v11.xml").not_loaded(), lab=lab)
    assert said("-L").endswith("running.\n9\n")
