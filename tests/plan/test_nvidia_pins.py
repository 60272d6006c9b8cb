"""A pinned release, and the services of boards whose GPUs reach beyond their host."""

import dataclasses
from pathlib import Path

import pytest

from plan import nvidia_pins, nvidia_table, settings
from plan.decide import plan_host
from plan.errors import SettingsError
from plan.lock import Driver
from plan.nvidia_plan import DriverPlan
from plan.probe import Probe
from plan.probe_driver import InstalledDriver, Kernel, Package
from tests.plan.test_nvidia import B200, H100, KERNEL, OWN, installed, machine, planned, refusal

GB200, GB300 = "0x2941", "0x31c2"
RELEASE = "580.95.05"


def tray(device: str = GB200, os: tuple[str, str] = ("ubuntu", "24.04")) -> Probe:
    """A compute tray of an NVL72 rack."""
    return dataclasses.replace(machine(os, device, 4), architecture="aarch64")


class TestAPinnedRelease:
    def test_is_planned_with_its_branch(self) -> None:
        plan = planned(machine(), version=RELEASE)
        assert (plan.branch, plan.pinned, plan.release) == (580, RELEASE, RELEASE)
        assert plan.summary == "580.95.05, open modules"
        assert plan.stream is None

    def test_is_of_a_branch_without_support_if_that_is_asked_for(self) -> None:
        assert planned(machine(), version="570.172.08").branch == 570

    def test_moves_another_release_of_the_same_branch(self) -> None:
        packages = {
            name: Package("hi", "580.65.06-1") for name in ("nvidia-kernel-open-dkms", "nvidia-driver-cuda")
        }
        driver = InstalledDriver(packages, (Kernel(KERNEL, True, "installed", "580.65.06"),), KERNEL)
        probe = dataclasses.replace(machine(), driver="580.65.06", nvidia=driver)
        plan = planned(probe, version=RELEASE)
        assert set(packages) <= set(plan.work.install)
        assert plan.work.start == "reload"
        assert planned(probe).work.install == ()

    def test_that_is_there_is_left_alone(self) -> None:
        plan = planned(installed(), **OWN, version="535.309.01")
        assert (plan.work.needed, plan.work.start) == (False, "")

    def test_the_distribution_does_not_have_is_refused(self) -> None:
        assert refusal(machine(), source="distribution", version=RELEASE) == (
            "driver.version: debian 12 has 535, not 580. Set one of these."
        )

    def test_is_not_of_another_branch(self) -> None:
        with pytest.raises(SettingsError) as refused:
            settings.read([{"driver": {"version": RELEASE, "branch": 570}}])
        assert refused.value.sentences == [
            "driver.version: 580.95.05 is not of branch 570. Leave driver.branch out, or set both alike."
        ]

    @pytest.mark.parametrize("release", ["580", "580.95.05-1", "12.4", "580.95.05; id"])
    def test_is_a_release_and_nothing_else(self, release: str) -> None:
        with pytest.raises(SettingsError):
            settings.read([{"driver": {"version": release}}])


class TestARack:
    nodes = ("10.1.0.11", "10.1.0.12")

    @pytest.mark.parametrize("device", [GB200, GB300])
    def test_gets_the_memory_exchange_at_the_drivers_release(self, device: str) -> None:
        plan = planned(tray(device), imex_nodes=list(self.nodes))
        assert plan.exact == ("nvidia-imex",)
        assert "nvidia-imex.service" in plan.units
        assert plan.imex_nodes == self.nodes
        # its switches are managed elsewhere
        assert "nvidia-fabricmanager.service" not in plan.units

    def test_gets_it_installed_and_not_started_without_the_names_of_the_others(self) -> None:
        plan = plan_host("gpu-1", settings.read([{}]), tray())
        assert plan.driver.exact == ("nvidia-imex",)
        assert "nvidia-imex.service" not in plan.driver.units
        assert [text for text in plan.warnings if "nvidia-imex is not started" in text]

    def test_has_a_branch_in_the_name_before_580(self) -> None:
        for source in ("nvidia", "distribution"):
            found = nvidia_table.names("ubuntu", source, 570, "open")
            assert found and found.rack == ("nvidia-imex-570",)

    def test_is_named_by_addresses(self) -> None:
        with pytest.raises(SettingsError) as refused:
            settings.read([{"driver": {"imex_nodes": ["10.1.0"]}}])
        assert refused.value.sentences == [
            "driver.imex_nodes: '10.1.0' is no address. Write one such as '10.1.0.11'."
        ]


def test_boards_of_hopper_and_before_need_no_memory_exchange() -> None:
    plan = planned(machine(("ubuntu", "24.04"), H100, 8), imex_nodes=["10.1.0.11"])
    assert plan.exact == ("nvidia-fabricmanager", "libnvidia-nscq")
    assert plan.imex_nodes == ()


def test_the_subnet_manager_of_blackwell_gets_the_module_that_it_looks_for() -> None:
    def of(device: str) -> DriverPlan:
        return planned(machine(("rocky", "9.6"), device, 8))

    assert (of(B200).beside, of(B200).modules_to_load) == (("nvlsm",), ("ib_umad",))
    assert (of(H100).beside, of(H100).modules_to_load) == ((), ())


def test_a_card_that_no_driver_in_support_serves_is_refused() -> None:
    # a Tesla K80
    assert refusal(machine(device="0x102d")) == (
        "GPU 0000:08:00.0: PCI id 10de:102d is older than Maxwell, and no driver in support serves it. Use "
        "another card."
    )


def test_a_branch_that_the_source_does_not_have_for_this_system_is_refused() -> None:
    assert refusal(machine(), branch=550) == (
        "driver.branch: nvidia has no branch 550 for debian 12. Leave driver.branch out."
    )


def test_a_subnet_manager_that_the_source_does_not_have_is_refused() -> None:
    assert refusal(machine(("ubuntu", "24.04"), B200, 8), source="distribution") == (
        "driver.branch: 580 has no NVLink subnet manager (nvlsm) for ubuntu 24.04, and the NVSwitches of "
        "this board need one. Leave it out, or set driver.source to nvidia."
    )


def test_what_belongs_to_the_driver_is_held_with_it_dcgm_included() -> None:
    more = {
        "datacenter-gpu-manager-4-core": Package("ii", "1:4.4.1-1"),
        "nvlsm": Package("ii", "2025.03.1-1"),
        "nvidia-container-toolkit": Package("ii", "1.17.8-1"),
    }
    driver = dataclasses.replace(installed().nvidia, packages={**installed().nvidia.packages, **more})
    held = planned(installed(nvidia=driver), **OWN).work.hold
    assert held == ("datacenter-gpu-manager-4-core", "nvlsm")


def test_the_same_is_held_by_dnf() -> None:
    lines = (Path(__file__).parents[1] / "roles" / "dnf" / "versionlock.list").read_text().splitlines()
    # what the probe takes of that file
    locks = tuple(line for line in lines if "nvidia" in line)
    names = ("kmod-nvidia-open-dkms", "nvidia-driver-cuda", "nvidia-kmod-common", "nvidia-persistenced")
    packages = dict.fromkeys(names, Package("ii", "580.95.05-1.el9")) | {
        "datacenter-gpu-manager-4-core": Package("ii", "4.4.1-1"),
        "kernel": Package("ii", "5.14.0-570.el9"),
    }
    kernel = "5.14.0-570.el9.x86_64"
    driver = InstalledDriver(packages, (Kernel(kernel, True, "installed", RELEASE),), kernel, locks=locks)
    probe = dataclasses.replace(machine(("rocky", "9.6"), kernel=kernel), driver=RELEASE, nvidia=driver)
    assert planned(probe).work.hold == ("datacenter-gpu-manager-4-core",)
    free = dataclasses.replace(driver, locks=locks[1:])
    assert "kmod-nvidia-open-dkms" in planned(dataclasses.replace(probe, nvidia=free)).work.hold


class TestWhatALockHolds:
    def test_is_the_release_and_every_package_that_is_there(self) -> None:
        probe = installed()
        found = nvidia_pins.pins(planned(probe, **OWN), probe)
        assert found and (found.release, found.modules) == ("535.309.01", "proprietary")
        assert found.packages["libcuda1"] == "535.309.01-0+deb12u1"
        assert found.packages["nvidia-persistenced"] == "535.171.04-1~deb12u1"

    def test_is_not_known_of_a_branch_before_it_is_installed(self) -> None:
        found = nvidia_pins.pins(planned(machine()), machine())
        assert found and (found.release, found.packages) == (None, {})
        found = nvidia_pins.pins(planned(machine(), version=RELEASE), machine())
        assert found and (found.release, found.packages) == (RELEASE, {})

    def test_is_what_the_next_plan_is_held_to_unless_the_operator_chose(self) -> None:
        found = Driver(made_by="a test", release=RELEASE, modules="open", source="nvidia")
        assert nvidia_pins.held(settings.read([{}]), found).driver.version == RELEASE
        for chosen in ({"branch": 595}, {"version": "595.71.05"}, {"managed": False}, {"state": "absent"}):
            wanted = settings.read([{"driver": chosen}])
            assert nvidia_pins.held(wanted, found) == wanted
