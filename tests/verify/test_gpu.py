"""The GPUs and their driver: all there, of one version, staying so, healthy."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest

from plan import burn_in as burn
from plan import gpu_health
from plan.host import HostPlan
from plan.nvidia import FABRIC, MEMORY_EXCHANGE
from plan.probe import PciDevice, Probe

Tell = Callable[[str], None]


@pytest.fixture
def gpus(plan: HostPlan, probe: Probe) -> tuple[PciDevice, ...]:
    """The GPUs on the bus."""
    if not probe.gpus:
        pytest.skip(f"{plan.host} has no GPU")
    return probe.gpus


@pytest.fixture
def driven(gpus: tuple[PciDevice, ...], probe: Probe) -> ElementTree.Element:
    """What nvidia-smi says; its own failure is another check's subject."""
    if not probe.smi.lstrip().startswith("<?xml"):
        pytest.skip("nvidia-smi does not answer")
    return ElementTree.fromstring(probe.smi.lstrip())


@pytest.fixture
def maintained(gpus: tuple[PciDevice, ...], plan: HostPlan) -> HostPlan:
    """The plan of a host whose driver this tool looks after."""
    if plan.driver.action != "install":
        pytest.skip("this driver is kept as it is, and is not looked after here")
    return plan


def test_loaded_driver_is_the_planned_one(
    gpus: tuple[PciDevice, ...], plan: HostPlan, probe: Probe, tell: Tell
) -> None:
    assert probe.driver, "no module of the driver is loaded"
    planned = plan.driver.version or str(plan.driver.branch)
    assert re.match(rf"{re.escape(planned)}(\.|$)", probe.driver), (
        f"driver {probe.driver} is loaded, planned is {planned}"
    )
    tell(f"driver {probe.driver}, {len(gpus)} GPUs")


def test_nvidia_smi_answers(gpus: tuple[PciDevice, ...], probe: Probe) -> None:
    """A library of another version than the module is what breaks most often."""
    if probe.driver is None:
        pytest.skip("no module of the driver is loaded, which is another check's subject")
    why = " ".join(gpu_health.warnings(probe)) or "nvidia-smi is not installed."
    assert probe.smi.lstrip().startswith("<?xml"), (
        f"the driver of {len(gpus)} GPUs does not answer: {why.rstrip('.')}"
    )


def test_module_and_libraries_are_of_one_version(driven: ElementTree.Element, probe: Probe) -> None:
    assert driven.findtext("driver_version") == probe.driver


@pytest.fixture
def lost(gpus: tuple[PciDevice, ...], driven: ElementTree.Element, probe: Probe) -> list[str]:
    """A sentence for every GPU on the bus that nvidia-smi does not show."""
    shown = {gpu.get("id", "").lower()[-12:] for gpu in driven.findall("gpu")}
    away = [device.address for device in gpus if device.address not in shown]
    return [said for said in gpu_health.warnings(probe) if any(f"GPU {address}:" in said for address in away)]


def test_every_gpu_on_the_bus_is_driven(gpus: tuple[PciDevice, ...], lost: list[str]) -> None:
    assert gpus
    assert not lost, " ".join(lost)


def test_gpus_stay_initialised(maintained: HostPlan, driven: ElementTree.Element, probe: Probe) -> None:
    if not maintained.driver.persistence:
        pytest.skip("driver.persistence is off")
    assert gpu_health.persistence(probe), (
        f"persistence mode is off on one of {len(driven.findall('gpu'))} GPUs"
    )


def test_no_other_upgrade_moves_the_driver(maintained: HostPlan) -> None:
    free = maintained.driver.work.hold
    assert not free, f"packages of the driver are not held: {', '.join(free)}"


def test_driver_waits_for_nothing(maintained: HostPlan, probe: Probe) -> None:
    work = maintained.driver.work
    assert not work.install, f"the driver is to be installed: {', '.join(work.install)}"
    assert not work.build, f"no module of the driver is built for {', '.join(work.build)}"
    if probe.driver is None or not probe.smi.lstrip().startswith("<?xml"):
        pytest.skip("the driver does not answer, which is another check's subject")
    assert not work.start, f"the driver waits for a {work.start}: {work.because}"


def test_fabric_of_switched_gpus_is_up(plan: HostPlan, driven: ElementTree.Element, probe: Probe) -> None:
    states = {
        gpu.get("id"): (gpu.findtext("fabric/state") or "N/A", gpu.findtext("fabric/status") or "N/A")
        for gpu in driven.findall("gpu")
    }
    if FABRIC not in plan.driver.units and all(state == "N/A" for state, _ in states.values()):
        pytest.skip("these GPUs have no NVSwitch between them")
    down = {
        name: state
        for name, state in states.items()
        if state not in (("Completed", "Success"), ("N/A", "N/A"))
    }
    assert not down, f"the fabric is not up: {down}"
    unit = probe.units.get(FABRIC)
    assert unit is None or unit.active == "active", f"{FABRIC} is {unit.active}"


def test_memory_exchange_with_other_hosts_runs(plan: HostPlan, probe: Probe) -> None:
    if MEMORY_EXCHANGE not in plan.driver.units:
        pytest.skip("no other host of an NVLink domain is named")
    unit = probe.units.get(MEMORY_EXCHANGE)
    assert unit and unit.active == "active", f"{MEMORY_EXCHANGE} is {unit.active if unit else 'not there'}"


def test_nothing_ails_the_gpus(gpus: tuple[PciDevice, ...], probe: Probe, lost: list[str]) -> None:
    ails = [said for said in gpu_health.warnings(probe) if said not in lost]
    assert gpus
    assert not ails, " ".join(ails)


def test_gpus_passed_their_burn_in(
    gpus: tuple[PciDevice, ...], plan: HostPlan, probe: Probe, tell: Tell
) -> None:
    if plan.burn_in is None or plan.burn_in.level is None:
        pytest.skip("burn_in is not set")
    failures = burn.read(probe.burn_in).failures
    assert not failures, " ".join(failures)
    assert not plan.burn_in.needed, "these GPUs were not tested with this driver"
    tell(f"{len(gpus)} GPUs passed DCGM's level {plan.burn_in.level}")
