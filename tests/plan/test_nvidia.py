"""The driver part of a host's plan, over every named system: packages, kernels, holds, refusals."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from plan import nvidia_table, settings, tables
from plan.decide import plan_host
from plan.errors import PlanError
from plan.nvidia_plan import DriverPlan
from plan.probe import Disk, PciDevice, Probe, parse
from plan.probe_driver import InstalledDriver, Kernel, Package
from tests import probes

BARE = dataclasses.replace(parse(probes.answer(probes.BARE)), virtualization="none")
KERNEL = "6.1.0-56-amd64"
H100, T4, V100, B200 = "0x2330", "0x1eb8", "0x1db5", "0x2901"


REJECTED = "Loading of module with unavailable key is rejected"


def cards(device: str, count: int = 1) -> tuple[PciDevice, ...]:
    return tuple(PciDevice(f"0000:{number}8:00.0", device, "0x030200") for number in range(count))


def machine(
    os: tuple[str, str] = ("debian", "12"),
    device: str = T4,
    count: int = 1,
    kernel: str = KERNEL,
    headers: str = "offered",
    **changes: Any,
) -> Probe:
    """A host with a kernel of its distribution, GPUs, and no driver."""
    driver = InstalledDriver({}, (Kernel(kernel, True, headers, None),), kernel)
    like = () if os[0] in ("debian", "ubuntu", "openeuler", "kylin") else ("rhel", "fedora")
    return dataclasses.replace(
        BARE,
        os_id=os[0],
        os_version=os[1],
        os_like=like,
        os_name=f"{os[0]} {os[1]}",
        kernel=kernel,
        pci=cards(device, count),
        nvidia=driver,
        **changes,
    )


DEBIAN_PACKAGES = {
    name: Package("hi", "535.309.01-0+deb12u1") for name in ("nvidia-kernel-dkms", "nvidia-smi", "libcuda1")
} | {"nvidia-persistenced": Package("hi", "535.171.04-1~deb12u1")}
OWN: dict[str, Any] = {"source": "distribution", "modules": "proprietary"}


def installed(module: str | None = "535.309.01", **changes: Any) -> Probe:
    """The Debian host after the role: its own packages, held, built for the kernel that runs."""
    driver = InstalledDriver(
        DEBIAN_PACKAGES, (Kernel(KERNEL, True, "installed", module),), KERNEL, added=frozenset({"libcuda1"})
    )
    given: dict[str, Any] = {"driver": "535.309.01", "modules": ("nvidia",), "nvidia": driver} | changes
    return dataclasses.replace(machine(), **given)


def planned(probe: Probe, **driver: Any) -> DriverPlan:
    return plan_host("gpu-1", settings.read([{"driver": driver}]), probe).driver


def refusal(probe: Probe, data: Mapping[str, Any] | None = None, **driver: Any) -> str:
    with pytest.raises(PlanError) as refused:
        plan_host("gpu-1", settings.read([{"driver": driver}, data or {}]), probe)
    assert len(refused.value.sentences) == 1
    return refused.value.sentences[0]


SYSTEMS = {
    ("debian", "12"): ("nvidia-driver-cuda", "nvidia-kernel-open-dkms"),
    ("debian", "13"): ("nvidia-driver-cuda", "nvidia-kernel-open-dkms"),
    ("ubuntu", "22.04"): ("libnvidia-compute", "nvidia-dkms-open"),
    ("ubuntu", "24.04"): ("libnvidia-compute", "nvidia-dkms-open"),
    ("ubuntu", "26.04"): ("libnvidia-compute", "nvidia-dkms-open"),
    ("rhel", "8.10"): ("kmod-nvidia-open-dkms", "nvidia-driver-cuda"),
    ("rocky", "9.6"): ("kmod-nvidia-open-dkms", "nvidia-driver-cuda"),
    ("almalinux", "10.0"): ("kmod-nvidia-open-dkms", "nvidia-driver-cuda"),
    ("openeuler", "22.03"): ("kmod-nvidia-open-dkms", "nvidia-driver-cuda"),
    ("openeuler", "24.03"): ("kmod-nvidia-open-dkms", "nvidia-driver-cuda"),
    ("kylin", "V10"): ("kmod-nvidia-open-dkms", "nvidia-driver-cuda"),
}


class TestEverySystem:
    @pytest.mark.parametrize(("os", "packages"), SYSTEMS.items(), ids=lambda value: " ".join(value))
    def test_gets_the_compute_part_of_the_newest_branch_by_its_own_names(
        self, os: tuple[str, str], packages: tuple[str, ...]
    ) -> None:
        plan = planned(machine(os))
        assert (plan.action, plan.branch, plan.modules) == ("install", 595, "open")
        assert plan.packages == packages == plan.work.install
        assert plan.repository
        assert plan.repository.url.startswith("https://developer.download.nvidia.com/compute/cuda/repos/")

    @pytest.mark.parametrize(("os", "packages"), SYSTEMS.items(), ids=lambda value: " ".join(value))
    def test_gets_proprietary_modules_of_the_last_branch_for_a_volta(
        self, os: tuple[str, str], packages: tuple[str, ...]
    ) -> None:
        plan = planned(machine(os, V100))
        assert (plan.branch, plan.modules) == (580, "proprietary")
        assert not any("open" in name for name in plan.packages)

    def test_names_its_branch_as_a_module_stream_where_dnf_has_them(self) -> None:
        assert planned(machine(("rocky", "9.6"))).stream == "nvidia-driver:595-open"
        assert planned(machine(("rhel", "8.10"), V100)).stream == "nvidia-driver:580-dkms"
        assert planned(machine(("rocky", "10.0"))).stream is None
        assert planned(machine()).stream is None

    def test_builds_against_headers_by_its_own_names(self) -> None:
        kernel = "5.14.0-570.12.1.el9_6.x86_64"
        assert planned(machine(("rocky", "9.6"), kernel=kernel)).headers == (f"kernel-devel-{kernel}",)
        large = planned(machine(("rocky", "9.6"), kernel="5.14.0-570.el9.aarch64+64k"))
        assert large.headers == ("kernel-64k-devel-5.14.0-570.el9.aarch64",)
        assert planned(machine()).headers == (f"linux-headers-{KERNEL}",)

    def test_has_a_keyring_with_a_hash_where_apt_needs_one(self) -> None:
        for row in nvidia_table.systems():
            assert (len(row.keyring_sha256) == 64) == (row.manager == "apt"), row.os
            assert row.source
        assert all(row["source"] for row in tables.read("nvidia")["packages"])

    def test_of_no_known_packages_is_refused_with_the_way_out(self) -> None:
        assert refusal(machine(("fedora", "43"))) == (
            "driver: no packages of it are known for fedora 43. Install it by hand and set driver.managed to "
            "False, or use another system."
        )


class TestTheSource:
    def test_is_nvidias_own_mirror_in_china(self) -> None:
        plan = plan_host("gpu-1", settings.read([{"sources": "china"}]), machine()).driver
        assert plan.repository
        assert plan.repository.url == (
            "https://developer.download.nvidia.cn/compute/cuda/repos/debian12/x86_64"
        )

    def test_is_a_local_mirror_when_the_settings_name_one(self) -> None:
        data = {"sources": {"nvidia": "http://10.0.0.5/cuda/repos/"}}
        arm = machine(("rocky", "9.6"), architecture="aarch64")
        plan = plan_host("gpu-1", settings.read([data]), arm).driver
        assert plan.repository and plan.repository.url == "http://10.0.0.5/cuda/repos/rhel9/sbsa"

    def test_is_the_distribution_with_the_branch_that_it_has(self) -> None:
        plan = planned(machine(), **OWN)
        assert (plan.branch, plan.modules, plan.repository) == (535, "proprietary", None)
        assert plan.packages == ("nvidia-kernel-dkms", "nvidia-smi", "libcuda1")
        assert planned(machine(("ubuntu", "24.04")), source="distribution").branch == 580

    def test_without_a_driver_of_its_own_is_refused(self) -> None:
        assert refusal(machine(("rocky", "9.6")), source="distribution") == (
            "driver.source: rocky 9.6 has no NVIDIA driver among its packages. Set it to nvidia."
        )

    def test_without_the_pinned_branch_is_refused_with_those_it_has(self) -> None:
        assert refusal(machine(), source="distribution", branch=580) == (
            "driver.branch: debian 12 has 535, not 580. Set one of these."
        )


class TestPins:
    def test_a_branch_is_held_to_even_when_a_newer_one_exists(self) -> None:
        assert planned(machine(), branch=580).branch == 580

    def test_another_branch_than_the_one_that_is_there_is_installed(self) -> None:
        plan = planned(installed(), branch=580)
        assert (plan.branch, plan.work.start) == (580, "reload")
        assert "the module that is loaded is 535.309.01" in plan.work.because

    def test_a_flavour_that_the_card_cannot_have_is_refused(self) -> None:
        assert "B200 (Blackwell) needs the open kernel modules" in refusal(
            machine(device=B200), modules="proprietary"
        )
        assert "(Volta) needs the proprietary kernel modules" in refusal(machine(device=V100), modules="open")

    def test_a_branch_that_does_not_serve_the_card_is_refused(self) -> None:
        assert "branch 595 does not serve" in refusal(machine(device=V100), branch=595)


class TestSwitches:
    def test_of_an_hgx_board_get_a_fabric_manager_of_the_drivers_release(self) -> None:
        plan = planned(machine(("ubuntu", "24.04"), H100, 8))
        assert plan.exact == ("nvidia-fabricmanager", "libnvidia-nscq")
        assert "nvidia-fabricmanager.service" in plan.units
        assert plan.beside == ()

    def test_of_blackwell_get_the_subnet_manager_too(self) -> None:
        assert planned(machine(("ubuntu", "24.04"), B200, 8)).beside == ("nvlsm",)

    def test_have_a_branch_in_the_name_before_580(self) -> None:
        plan = planned(machine(("ubuntu", "24.04"), H100, 8), branch=570)
        assert plan.exact == ("nvidia-fabricmanager-570", "libnvidia-nscq-570")

    def test_cannot_be_served_by_debians_own_packages(self) -> None:
        assert refusal(machine(device=H100, count=8), **OWN) == (
            "driver.source: debian 12 has no fabric manager among its packages, and the NVSwitches of this "
            "board need one. Set it to nvidia."
        )


class TestAHostThatHasItsDriver:
    def test_is_left_alone(self) -> None:
        plan = planned(installed(), **OWN)
        assert (plan.action, plan.summary, plan.work.needed, plan.work.start) == (
            "install",
            "535.309.01 (kept)",
            False,
            "",
        )

    def test_holds_what_somebody_released(self) -> None:
        packages = DEBIAN_PACKAGES | {"libcuda1": Package("ii", "535.309.01-0+deb12u1")}
        driver = dataclasses.replace(installed().nvidia, packages=packages)
        assert planned(installed(nvidia=driver), **OWN).work.hold == ("libcuda1",)

    def test_gets_the_module_for_a_kernel_that_came_since(self) -> None:
        new = Kernel("6.1.0-57-amd64", True, "offered", None)
        driver = installed().nvidia
        driver = dataclasses.replace(driver, kernels=(*driver.kernels, new), next_kernel=new.version)
        plan = planned(installed(nvidia=driver), **OWN)
        assert plan.work.build == ("6.1.0-57-amd64",)
        assert plan.work.start == ""
        assert plan.kernels == (KERNEL, "6.1.0-57-amd64")

    def test_of_libraries_newer_than_the_module_loads_it_anew(self) -> None:
        plan = planned(installed(driver="535.300.01"), **OWN)
        assert plan.work.start == "reload"
        assert plan.work.because == "the module that is loaded is 535.300.01, the libraries are 535.309.01"

    def test_whose_parts_are_of_two_releases_installs_them_again(self) -> None:
        packages = DEBIAN_PACKAGES | {"libcuda1": Package("hi", "535.300.01-1")}
        driver = dataclasses.replace(installed().nvidia, packages=packages)
        assert planned(installed(nvidia=driver), **OWN).work.install == ("libcuda1",)

    def test_whose_installation_was_cut_completes_it(self) -> None:
        driver = dataclasses.replace(installed().nvidia, broken=("nvidia-kernel-dkms",))
        assert planned(installed(nvidia=driver), **OWN).work.install == ("nvidia-kernel-dkms",)

    def test_that_is_not_loaded_says_why_in_the_kernels_words(self) -> None:
        driver = dataclasses.replace(installed().nvidia, log=(REJECTED,))
        plan = planned(installed(driver=None, modules=(), nvidia=driver), **OWN)
        assert plan.work.start == "load"
        assert plan.work.because == f"no module is loaded, the kernel says: {REJECTED}"

    def test_by_hand_keeps_its_packages_and_has_them_held(self) -> None:
        packages = {
            "nvidia-driver-580-open": Package("ii", "580.95.05-0ubuntu1"),
            "nvidia-dkms-580-open": Package("ii", "580.95.05-0ubuntu1"),
            "libnvidia-compute-580": Package("ii", "580.95.05-0ubuntu1"),
        }
        driver = InstalledDriver(packages, (Kernel(KERNEL, True, "installed", "580.95.05"),), KERNEL)
        plan = planned(dataclasses.replace(machine(("ubuntu", "24.04")), driver="580.95.05", nvidia=driver))
        assert (plan.work.install, plan.work.start) == ((), "")
        assert plan.work.hold == tuple(sorted(packages))

    def test_is_not_touched_when_it_is_not_to_be_managed(self) -> None:
        plan = planned(installed(driver="535.300.01"), managed=False)
        assert (plan.action, plan.work.needed, plan.work.start) == ("keep", False, "")

    def test_below_the_floor_of_the_stack_gets_another_branch(self) -> None:
        old = {"nvidia-kernel-dkms": Package("ii", "470.256.02-1"), "libcuda1": Package("ii", "470.256.02-1")}
        driver = InstalledDriver(old, (Kernel(KERNEL, True, "installed", "470.256.02"),), KERNEL)
        plan = planned(installed(driver="470.256.02", nvidia=driver))
        assert (plan.branch, plan.work.start) == (595, "reload")
        assert set(plan.packages) <= set(plan.work.install)


class TestAReboot:
    def test_is_needed_where_nouveau_holds_the_card(self) -> None:
        for rival in ("nouveau", "nova_core"):
            plan = planned(machine(modules=(rival,)))
            assert (plan.work.start, plan.work.because) == ("reboot", f"{rival} holds the card")

    def test_is_not_needed_where_the_module_only_has_to_be_loaded(self) -> None:
        assert planned(machine()).work.start == "load"

    def test_is_needed_where_the_kernel_that_runs_has_no_headers_any_more(self) -> None:
        probe = dataclasses.replace(machine(), kernel="6.1.0-40-amd64")
        plan = planned(probe)
        assert plan.kernels == (KERNEL,)
        assert plan.work.because == "the kernel that runs, 6.1.0-40-amd64, has no module of it"

    def test_that_is_not_allowed_ends_the_host_with_a_sentence_once_nothing_else_is_missing(self) -> None:
        waiting = installed(driver=None, modules=("nouveau",))
        assert refusal(waiting, **OWN) == (
            "driver: 535.309.01 is installed and starts with the next boot (nouveau holds the card). "
            "Reboot the host, or set driver.reboot to allowed, and run again."
        )
        assert planned(waiting, **OWN, reboot="allowed").work.start == "reboot"

    def test_follows_a_module_that_could_not_be_unloaded(self) -> None:
        driver = dataclasses.replace(installed().nvidia, waiting="nvidia is in use and cannot be unloaded")
        plan = planned(installed(driver="535.300.01", nvidia=driver), **OWN, reboot="allowed")
        assert (plan.work.start, plan.work.because) == ("reboot", "nvidia is in use and cannot be unloaded")
        assert planned(installed(nvidia=driver), **OWN).work.start == ""

    def test_that_did_not_help_is_not_repeated(self) -> None:
        before = "00000000-0000-4000-8000-00000000beef"
        driver = dataclasses.replace(installed().nvidia, rebooted=(before, "535.309.01"))
        waiting = installed(driver=None, modules=("nouveau",), nvidia=driver)
        assert refusal(waiting, **OWN, reboot="allowed") == (
            "driver: the host was rebooted for 535.309.01, and still nouveau holds the card. Look at what "
            "its boot loader starts, then remove /etc/bringup/driver/rebooted and run again."
        )


class TestRefusals:
    def test_cards_that_no_driver_serves_together(self) -> None:
        both = dataclasses.replace(machine(), pci=(*cards(V100), PciDevice("0000:99:00.0", B200, "0x030200")))
        sentence = refusal(both)
        assert "needs the proprietary kernel modules and B200 (Blackwell) needs the open ones" in sentence

    def test_an_installation_by_a_run_file(self) -> None:
        run = dataclasses.replace(machine().nvidia, unowned="/usr/bin/nvidia-uninstall")
        assert refusal(dataclasses.replace(machine(), nvidia=run)) == (
            "driver: /usr/bin/nvidia-uninstall belongs to no package: a .run file installed a driver here. "
            "Run `nvidia-uninstall`, reboot, and run again, or set driver.managed to False."
        )

    def test_a_container_that_borrows_a_driver_that_does_not_suffice(self) -> None:
        nothing = InstalledDriver({}, borrowed="/usr/lib/x86_64-linux-gnu/libcuda.so.470.256.02")
        probe = dataclasses.replace(machine(), virtualization="lxc", driver="470.256.02", nvidia=nothing)
        assert refusal(probe).endswith(
            "CUDA 12.1 needs driver 525.60.13 or newer, this one is 470.256.02. Install driver branch 595 "
            "with open modules on the computer that this container runs on."
        )

    def test_a_container_with_a_driver_that_suffices_is_only_looked_at(self) -> None:
        probe = dataclasses.replace(
            machine(), virtualization="docker", driver="580.95.05", nvidia=InstalledDriver({})
        )
        assert planned(probe).action == "keep"

    def test_a_container_without_a_kernel_of_its_own(self) -> None:
        probe = dataclasses.replace(machine(), virtualization="lxc", nvidia=InstalledDriver({}))
        assert refusal(probe) == (
            "driver: this is a container (lxc) without a kernel of its own. Install the driver on its host "
            "and hand the GPUs in, or set driver.managed to False."
        )

    def test_secure_boot_with_a_key_that_is_not_enrolled_gives_the_exact_steps(self) -> None:
        probe = machine(("ubuntu", "24.04"), secure_boot="SecureBoot enabled")
        assert refusal(probe) == (
            "driver: Secure Boot is on and the key that signs modules here "
            "(/var/lib/shim-signed/mok/MOK.der) is not enrolled: the module would be built and never load. "
            "On the host: `update-secureboot-policy --new-key`, then `mokutil --import "
            "/var/lib/shim-signed/mok/MOK.der`, reboot, choose Enroll MOK at the console; then run again. "
            "Or switch Secure Boot off in the firmware."
        )
        key = "/var/lib/dkms/mok.pub is not enrolled"
        there = dataclasses.replace(
            machine(secure_boot="SecureBoot enabled"), nvidia=dataclasses.replace(machine().nvidia, key=key)
        )
        assert "On the host: `mokutil --import /var/lib/dkms/mok.pub`, reboot" in refusal(there)

    def test_secure_boot_with_an_enrolled_key_is_fine(self) -> None:
        key = "/var/lib/dkms/mok.pub is already enrolled"
        driver = dataclasses.replace(machine().nvidia, key=key)
        probe = dataclasses.replace(machine(secure_boot="SecureBoot enabled"), nvidia=driver)
        assert planned(probe).work.install

    def test_a_kernel_without_headers_anywhere(self) -> None:
        assert refusal(machine(kernel="6.18.44-own", headers="missing")) == (
            "driver: the kernel 6.18.44-own has no headers here, and the package sources have none. Install "
            "a kernel of the distribution with its headers, or boot one that is installed."
        )

    @pytest.mark.parametrize(("path", "free"), [("/boot", 0.05), ("/usr", 1.0)])
    def test_a_disk_without_room(self, path: str, free: float) -> None:
        full = machine(disks={**BARE.disks, path: Disk("/dev/sda2", free)})
        assert refusal(full).startswith(f"disk: {path} has {free:.2f} GiB free, the driver needs ")

    def test_a_container_on_a_service_that_needs_the_driver_away(self) -> None:
        data = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}
        with pytest.raises(PlanError) as refused:
            settings.read([data, {"driver": {"state": "absent"}}])
        assert refused.value.sentences == [
            "driver.state: is absent, and serve.chat needs it. Set that to absent too, or leave "
            "driver.state out."
        ]


class TestAbsence:
    def test_removes_what_was_brought(self) -> None:
        assert planned(installed(), state="absent").action == "remove"

    def test_of_nothing_is_nothing(self) -> None:
        assert planned(machine(), state="absent").action == "none"


def test_debians_own_driver_is_kept_where_nvidias_repository_has_none_of_its_branch() -> None:
    plan = planned(installed())
    assert (plan.source, plan.repository, plan.work.install) == ("distribution", None, ())
