"""The program on the host when things go wrong later: upgrades that do not come up, GPUs that ail."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plan.nvidia_work import belongs
from plan.probe import Probe
from plan.probe_driver import InstalledDriver, Kernel, Package
from tests.plan.test_nvidia import H100, KERNEL, machine
from tests.roles.driver_sandbox import Sandbox
from tests.roles.test_nvidia_script import KERNELS, NEW, OLD, rhel

PENDING = "<gpu><remapped_rows><remapped_row_pending>Yes</remapped_row_pending></remapped_rows></gpu>\n"
IN_USE = """The following GPUs could not be reset:
  GPU 00000000:3B:00.0: In use by another client

1 device is currently being used by one or more other processes.
"""
BACK = (
    "driver: release 580.95.05, which was there before, is back. Look at why the other failed, or set "
    "driver.branch."
)


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    """A host whose driver 580 has just been replaced by 595, which does not load."""
    host = Sandbox(tmp_path, OLD)
    boots(host, KERNELS["9.6"])
    done = host.run(rhel("9.6"), "install")
    assert done.returncode == 0, done.stderr
    assert host.packages() == NEW
    host.write("does-not-load", "595.71.05\n")
    return host


def boots(host: Sandbox, kernel: str) -> None:
    uname = host.folder / "bin" / "uname"
    uname.write_text(f"#!/bin/sh\necho {kernel}\n")
    uname.chmod(0o755)


def text(host: Sandbox, path: str) -> str:
    file = host.folder / path
    return file.read_text() if file.exists() else ""


class TestAnUpgradeThatDoesNotComeUp:
    def test_after_a_reboot_of_ours_is_taken_back(self, host: Sandbox) -> None:
        host.write("etc/bringup/driver/rebooted", "a-boot-id 595.71.05\n")
        done = host.run(rhel("9.6"), "settle")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == BACK
        assert "release 595.71.05 could not be put to work" in done.stderr
        assert {name: host.packages()[name] for name in OLD} == OLD
        assert text(host, "sys/module/nvidia/version") == "580.95.05\n"

    def test_after_a_reboot_of_the_operators_is_taken_back(self, host: Sandbox) -> None:
        done = host.run(rhel("9.6"), "start")
        assert (done.returncode, done.stderr.splitlines()[-1]) == (1, BACK)
        assert text(host, "sys/module/nvidia/version") == "580.95.05\n"

    def test_is_taken_back_too_where_it_loads_and_drives_nothing(self, host: Sandbox) -> None:
        (host.folder / "does-not-load").unlink()
        host.write("etc/bringup/driver/rebooted", "a-boot-id 595.71.05\n")
        smi = host.folder / "bin" / "nvidia-smi"
        smi.write_text(
            smi.read_text().replace("-e shows-none", "$(cat sys/module/nvidia/version) = 595.71.05")
        )
        device = host.folder / "sys/bus/pci/devices/0000:3b:00.0"
        host.write(f"{device.relative_to(host.folder)}/vendor", "0x10de\n")
        host.write(f"{device.relative_to(host.folder)}/class", "0x030200\n")
        done = host.run(rhel("9.6"), "settle")
        assert "nvidia-smi shows 0 of 1 GPUs" in done.stderr
        assert done.stderr.splitlines()[-1] == BACK

    def test_is_not_tried_again_unasked(self, host: Sandbox) -> None:
        host.run(rhel("9.6"), "start")
        again = host.run(rhel("9.6"), "install")
        assert again.returncode == 1
        assert again.stderr == (
            "driver: release 595.71.05 did not come up on this host before (modprobe: ERROR: could not "
            "insert 'nvidia': No such device). Set driver.version to another, or remove "
            f"{host.folder}/etc/bringup/driver/failed to have it tried again.\n"
        )
        other = host.run(rhel("9.6"), "install", version="595.58.03")
        assert other.returncode == 0, other.stderr
        assert host.packages()["nvidia-driver-cuda"] == "595.58.03"

    def test_goes_back_by_the_stream_that_the_old_one_is_of(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path, OLD)
        boots(host, KERNELS["9.6"])
        host.run(rhel("9.6"), "install")
        host.write("does-not-load", "595.71.05\n")
        host.run(rhel("9.6"), "start")
        assert host.asked("dnf module enable") == [
            "dnf module enable nvidia-driver:595-open",
            "dnf module enable nvidia-driver:580-open",
        ]

    def test_leaves_nothing_of_the_new_flavour_beside_the_old(self, tmp_path: Path) -> None:
        proprietary = dict.fromkeys(("kmod-nvidia-latest-dkms", "nvidia-driver-cuda"), "580.95.05-1.el9")
        host = Sandbox(tmp_path, proprietary)
        boots(host, KERNELS["9.6"])
        host.run(rhel("9.6"), "install")
        assert "kmod-nvidia-latest-dkms" not in host.packages()
        host.write("does-not-load", "595.71.05\n")
        done = host.run(rhel("9.6"), "start")
        assert done.stderr.splitlines()[-1] == BACK
        assert host.packages() == proprietary

    def test_goes_back_to_what_ran_last_and_not_further(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path, OLD)
        boots(host, KERNELS["9.6"])
        # 470 was replaced by 580 once, which came up with a boot that no run has looked at
        host.write("etc/bringup/driver/previous", "kmod-nvidia-latest-dkms 470.256.02-1.el9\n")
        host.write("built", "")
        host.write("sys/module/nvidia/version", "580.95.05\n")
        host.run(rhel("9.6"), "install")
        assert "470" not in text(host, "etc/bringup/driver/previous")
        host.write("does-not-load", "595.71.05\n")
        assert host.run(rhel("9.6"), "start").stderr.splitlines()[-1] == BACK


class TestADriverOfTwoReleases:
    def test_is_made_whole_at_the_one_that_the_plan_says(self, tmp_path: Path) -> None:
        older, newer = "595.58.03-1", "595.71.05-1"
        host = Sandbox(tmp_path, {"nvidia-kernel-open-dkms": older, "nvidia-driver-cuda": newer})
        # a source that keeps the newest alone
        host.write("madison", "".join(f"{name} | {newer} | https://mirror\n" for name in host.installed))
        packages = {name: Package("hi", version) for name, version in host.installed.items()}
        there = InstalledDriver(packages, (Kernel(KERNEL, True, "installed", "595.58.03"),), KERNEL)
        done = host.run(replace(machine(driver="595.58.03"), nvidia=there), "install")
        assert done.returncode == 0, done.stderr
        assert {name: host.packages()[name] for name in host.installed} == dict.fromkeys(packages, newer)


class TestAPinnedRelease:
    def test_is_what_dnf_is_asked_for_with_all_that_belongs_to_it(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        done = host.run(rhel("9.6", H100, 8), "install", version="595.58.03")
        assert done.returncode == 0, done.stderr
        (install,) = host.asked("dnf install")
        for name in ("kmod-nvidia-open-dkms", "nvidia-driver-cuda", "nvidia-fabricmanager", "libnvidia-nscq"):
            assert f" {name}-595.58.03 " in f"{install} "

    def test_that_dnf_does_not_have_is_refused_with_those_it_has(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        done = host.run(rhel("9.6"), "install", version="595.99.01")
        assert done.stderr == (
            "driver: the package sources have no nvidia-driver-cuda of release 595.99.01, only 580.95.05, "
            "595.58.03, 595.71.05. Set driver.version to one that they have, or leave it out.\n"
        )
        assert host.packages() == {}

    def test_moves_a_driver_of_the_same_branch(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path, dict.fromkeys(OLD, "595.71.05-1.el9"))
        assert host.run(rhel("9.6"), "install", version="595.58.03").returncode == 0
        assert host.packages()["kmod-nvidia-open-dkms"] == "595.58.03"

    NAMES = ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-fabricmanager", "libnvidia-nscq")

    def offered(self, host: Sandbox, *releases: str) -> None:
        lines = [
            f"{name} | {release}-1 | https://mirror Packages" for name in self.NAMES for release in releases
        ]
        host.write("madison", "\n".join(lines) + "\n")

    def test_is_what_apt_is_asked_for_with_all_that_belongs_to_it(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        self.offered(host, "595.71.05", "595.58.03", "595.5.0")
        done = host.run(machine(device=H100, count=8), "install", version="595.58.03")
        assert done.returncode == 0, done.stderr
        (install,) = [
            line for line in host.asked("apt-get") if " install " in line and "--dry-run" not in line
        ]
        for name in self.NAMES:
            assert f" {name}=595.58.03-1" in install

    def test_that_apt_does_not_have_is_refused_with_those_it_has(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        self.offered(host, "595.71.05", "595.58.03")
        done = host.run(machine(), "install", version="595.99.01")
        assert done.stderr == (
            "driver: the package sources have no nvidia-driver-cuda of release 595.99.01, only 595.58.03, "
            "595.71.05. Set driver.version to one that they have, or leave it out.\n"
        )
        assert host.packages() == {}


class TestGpusThatAil:
    def mend(self, host: Sandbox, *words: str, **driver: Any) -> subprocess.CompletedProcess[str]:
        host.write("etc/systemd/system/vllm-chat.service", "")
        return host.run(self.probe(), "mend", *words, **driver)

    def probe(self) -> Probe:
        return machine()

    def test_are_reset_once_what_uses_them_has_stopped(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        done = self.mend(host, "GPU-1")
        assert (done.returncode, done.stderr) == (0, "driver: GPU 00000000:3b:00.0 is reset.\n")
        asked = host.asked("systemctl", "nvidia-smi")
        reset = asked.index("nvidia-smi --gpu-reset -i GPU-1")
        assert asked.index("systemctl stop vllm-chat.service") < reset
        assert asked.index("systemctl stop nvidia-persistenced.service") < reset
        assert asked.index("systemctl --no-block start vllm-chat.service") > reset
        # boards of Ampere are reset with its help
        assert "systemctl stop nvidia-fabricmanager.service" not in asked

    def test_are_noted_for_this_boot_and_for_the_reader_of_the_kernel_log(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        (host.folder / "dev").mkdir()
        self.mend(host, "GPU-1")
        assert text(host, "run/bringup/gpu-reset") == "GPU-1\n"
        assert text(host, "dev/kmsg") == "bringup: bringup has reset GPU 00000000:3b:00.0 of nvidia\n"

    def test_that_cannot_be_reset_are_named_with_the_reason(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        host.write("refuses-reset", IN_USE)
        done = self.mend(host, "GPU-1")
        assert done.returncode == 1
        assert done.stderr == (
            "driver: these GPUs could not be reset: GPU-1 (GPU 00000000:3B:00.0: In use by another client). "
            "Reboot the host, or set driver.reboot to allowed, and run again.\n"
        )
        assert text(host, "run/bringup/gpu-reset") == "GPU-1\n"
        assert "systemctl --no-block start vllm-chat.service" in host.asked("systemctl")

    def test_that_cannot_be_reset_wait_for_a_reboot_that_is_allowed(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        host.write("refuses-reset", IN_USE)
        done = self.mend(host, "GPU-1", reboot="allowed")
        assert done.returncode == 3
        assert text(host, "run/bringup/reboot-pending").startswith("these GPUs could not be reset: GPU-1 (")

    def test_are_made_whole_instances_first(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        host.write("mig", "Enabled\n")
        assert self.mend(host, "mig=GPU-1").returncode == 0
        asked = [line for line in host.asked("nvidia-smi") if "mig" in line or "reset" in line]
        assert asked == [
            "nvidia-smi mig -i GPU-1 -dci",
            "nvidia-smi mig -i GPU-1 -dgi",
            "nvidia-smi -i GPU-1 -mig 0",
            "nvidia-smi -i GPU-1 --query-gpu=mig.mode.current --format=csv,noheader",
            "nvidia-smi --gpu-reset -i GPU-1",
        ]


class TestAfterARebootForTheirSake:
    record = "etc/bringup/driver/rebooted-for"

    @pytest.mark.parametrize("said", [PENDING, "<gpu_recovery_action>Reset</gpu_recovery_action>\n", None])
    def test_gpus_that_ail_all_the_same_are_named_and_remembered(
        self, tmp_path: Path, said: str | None
    ) -> None:
        host = Sandbox(tmp_path)
        host.write(self.record, "a-boot-id GPU-1\n")
        if said:
            host.write("smi", said)
        done = host.run(machine(), "settle")
        assert (done.returncode, done.stderr) == (
            1,
            "driver: the reboot did not help these GPUs: GPU-1. Have the cards looked at.\n",
        )
        assert text(host, self.record) == "a-boot-id GPU-1\n"

    def test_gpus_that_are_well_are_forgotten(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        host.write(self.record, "a-boot-id GPU-1\n")
        host.write("smi", PENDING.replace("Yes", "No") + "<gpu_recovery_action>None</gpu_recovery_action>\n")
        assert host.run(machine(), "settle").returncode == 0
        assert not (host.folder / self.record).exists()

    def test_the_reboot_is_noted_before_it_happens(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        host.write("proc/sys/kernel/random/boot_id", "a-boot-id\n")
        assert host.run(machine(), "before_reboot", "GPU-1", "0000:3b:00.0").returncode == 0
        assert text(host, self.record) == "a-boot-id GPU-1\na-boot-id 0000:3b:00.0\n"
        assert not (host.folder / "etc/bringup/driver/rebooted").exists()

    def test_gpus_of_an_earlier_reboot_stay_noted(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        host.write("proc/sys/kernel/random/boot_id", "a-boot-id\n")
        host.write(self.record, "an-older-boot GPU-2\n")
        assert host.run(machine(), "before_reboot", "GPU-1").returncode == 0
        assert text(host, self.record) == "an-older-boot GPU-2\na-boot-id GPU-1\n"

    def test_what_has_helped_is_forgotten_and_nothing_else(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path)
        host.write(self.record, "a-boot-id GPU-1\na-boot-id GPU-12\n")
        host.write("etc/bringup/driver/rebooted", "a-boot-id 580.95.05\n")
        assert host.run(machine(), "forget", "GPU-1").returncode == 0
        assert text(host, self.record) == "a-boot-id GPU-12\n"
        assert (host.folder / "etc/bringup/driver/rebooted").exists()
        assert host.run(machine(), "forget", "driver").returncode == 0
        assert not (host.folder / "etc/bringup/driver/rebooted").exists()


def test_a_kernel_of_the_flavour_nvidia_is_none_of_the_driver(tmp_path: Path) -> None:
    ours = ["libnvidia-compute", "nvidia-dkms-open"]
    others = ["linux-image-6.8.0-1013-nvidia", "nvidia-container-toolkit", "nvidia-gpu-firmware"]
    host = Sandbox(tmp_path, dict.fromkeys([*ours, *others], "595.71.05-1"))
    done = host.run(machine(), "hold")
    assert done.returncode == 0, done.stderr
    assert host.asked("apt-mark") == [f"apt-mark hold {' '.join(ours)}"]
    # and so says the plan of what is to be held
    assert [name for name in (*ours, *others) if belongs(name)] == ours
