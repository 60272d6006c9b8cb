"""The program that installs the driver: what it asks of dnf and apt, and its sentences when they refuse."""

from pathlib import Path

import pytest

from plan.probe import Probe
from tests.plan.test_nvidia import B200, H100, V100, machine
from tests.roles.driver_sandbox import Sandbox, dnf_said

KERNELS = {
    "8.10": "4.18.0-553.el8_10.x86_64",
    "9.6": "5.14.0-570.12.1.el9_6.x86_64",
    "10.0": "6.12.0-55.el10_0.x86_64",
}
NEW = {
    "kmod-nvidia-open-dkms": "595.71.05",
    "nvidia-driver-cuda": "595.71.05",
    "nvidia-persistenced": "595.71.05",
}
OLD = {"kmod-nvidia-open-dkms": "580.95.05-1.el9", "nvidia-driver-cuda": "580.95.05-1.el9"}
UNMET = """Reading package lists...
The following packages have unmet dependencies:
 nvidia-open-kernel-dkms : Depends: firmware-nvidia-gsp (= 535.261.03) or
                                    firmware-nvidia-gsp-535.261.03
                           Depends: nvidia-open-kernel-support--v1
E: Unable to correct problems, you have held broken packages.
"""


@pytest.fixture
def host(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def rhel(version: str, device: str = H100, count: int = 1) -> Probe:
    return machine(("rocky", version), device, count, kernel=KERNELS[version])


class TestDnf:
    @pytest.mark.parametrize("version", ["8.10", "9.6"])
    def test_takes_the_branch_by_its_stream_and_everything_of_one_release(
        self, host: Sandbox, version: str
    ) -> None:
        done = host.run(rhel(version), "install")
        assert done.returncode == 0, done.stderr
        steps = [line for line in host.asked("dnf ") if "repoquery" not in line]
        assert steps == [
            "dnf module reset nvidia-driver",
            "dnf module enable nvidia-driver:595-open",
            "dnf versionlock delete",
            f"dnf install --allowerasing dkms kernel-devel-{KERNELS[version]} dnf-command(versionlock) "
            "kmod-nvidia-open-dkms-595.71.05 nvidia-driver-cuda-595.71.05 nvidia-persistenced-595.71.05",
            "dnf versionlock delete kmod-nvidia-open-dkms nvidia-driver-cuda nvidia-persistenced",
            "dnf versionlock add kmod-nvidia-open-dkms nvidia-driver-cuda nvidia-persistenced",
        ]
        assert host.packages() == NEW
        assert f"its module built for {KERNELS[version]}, all of it held" in done.stderr

    def test_knows_no_streams_on_rhel_10(self, host: Sandbox) -> None:
        assert host.run(rhel("10.0"), "install").returncode == 0
        assert host.asked("dnf module") == []
        assert host.packages() == NEW

    def test_takes_proprietary_modules_of_the_last_branch_for_a_volta(self, host: Sandbox) -> None:
        host.run(rhel("9.6", V100), "install")
        assert "dnf module enable nvidia-driver:580-dkms" in host.asked("dnf module")
        assert host.packages()["kmod-nvidia-latest-dkms"] == "580.95.05"

    def test_takes_a_fabric_manager_of_the_very_release_and_the_subnet_manager_beside(
        self, host: Sandbox
    ) -> None:
        host.run(rhel("9.6", B200, 8), "install")
        (install,) = host.asked("dnf install")
        assert "nvidia-fabricmanager-595.71.05 libnvidia-nscq-595.71.05" in install
        assert install.endswith(" nvlsm")

    def test_builds_the_module_for_the_kernel_that_boots_next(self, host: Sandbox) -> None:
        host.run(rhel("9.6"), "install")
        assert host.asked("dkms") == [f"dkms autoinstall -k {KERNELS['9.6']}"]

    def test_notes_what_it_brought(self, host: Sandbox) -> None:
        host.run(rhel("9.6"), "install")
        assert (host.folder / "etc/bringup/driver/added").read_text().split() == sorted(NEW)

    def test_says_where_dkms_is_when_epel_is_missing(self, host: Sandbox) -> None:
        host.write("offers-dkms", "")
        dnf = host.folder / "bin" / "dnf"
        refusal = "echo 'Error: Unable to find a match: epel-release' >&2; exit 1"
        dnf.write_text(dnf.read_text().replace('case "$*" in', f'case "$*" in *epel*) {refusal} ;;', 1))
        done = host.run(rhel("9.6"), "install")
        assert done.stderr == (
            "driver: dkms is in EPEL, which is not enabled and cannot be installed. "
            "Enable EPEL on this host.\n"
        )
        assert host.packages() == {}

    @pytest.mark.parametrize("asked", ["--available dkms", "epel"])
    def test_says_which_repository_cannot_be_reached(self, host: Sandbox, asked: str) -> None:
        host.write("offers-dkms", "")
        problem = "Failed to download metadata for repo 'bringup-nvidia': Cannot download repomd.xml"
        host.write("unreachable", f"Error: {problem}\n")
        dnf = host.folder / "bin" / "dnf"
        refusal = f'case "$*" in *"{asked}"*) cat unreachable >&2; exit 1 ;;'
        dnf.write_text(dnf.read_text().replace('case "$*" in', refusal, 1))
        done = host.run(rhel("9.6"), "install")
        assert done.stderr == (
            f"driver: the package sources cannot be read: {problem}. Correct sources.nvidia, or the host's "
            "own, and run again.\n"
        )

    def test_trusts_the_pinned_key_alone(self, host: Sandbox) -> None:
        host.write("fingerprint", "fpr:::::::::0000000000000000000000000000000000000000:\n")
        done = host.run(rhel("9.6"), "install")
        assert done.stderr.endswith("/D42D0685.pub is not the pinned key. Correct sources.nvidia.\n")
        assert not host.asked("rpm --import")

    def test_says_that_the_repository_has_no_such_branch(self, host: Sandbox) -> None:
        done = host.run(rhel("9.6"), "install", branch=590)
        assert done.returncode == 1
        assert done.stderr == (
            "driver: the package sources have no nvidia-driver-cuda of branch 590. Set driver.branch to one "
            "that the repository has, or driver.source to distribution.\n"
        )

    @pytest.mark.parametrize(
        ("said", "sentence"),
        [
            (
                "nothing-provides",
                "nothing provides gcc-of-another-world needed by nvidia-needs-more-1.0-1.el9.noarch",
            ),
            ("no-match", "Unable to find a match: kmod-nvidia-open-dkms-595.99.01"),
            (
                "conflict",
                "package kmod-nvidia-latest-dkms-3:580.95.05-1.el9.noarch conflicts with "
                "kmod-nvidia-open-dkms provided by kmod-nvidia-open-dkms-3:580.95.05-1.el9.noarch",
            ),
        ],
    )
    def test_says_why_an_installation_failed_and_what_to_do(
        self, host: Sandbox, said: str, sentence: str
    ) -> None:
        host.write("dnf-refuses", dnf_said(said))
        done = host.run(rhel("9.6"), "install")
        assert done.stderr == f"driver: it could not be installed: {sentence}. Mend that and run again.\n"

    def test_says_that_the_repository_has_no_such_stream(self, host: Sandbox) -> None:
        host.write("no-stream", dnf_said("no-such-stream"))
        done = host.run(rhel("9.6"), "install", branch=590)
        assert done.stderr == (
            "driver: the repository has no stream nvidia-driver:590-open. Set driver.branch to one that it "
            "has.\n"
        )

    def test_takes_away_with_it_what_came_along_and_the_key(self, host: Sandbox) -> None:
        host.run(rhel("9.6"), "install")
        host.write("etc/bringup/driver/added", "dkms\nkernel-devel\nkmod-nvidia-open-dkms\n")
        host.write("installed", "bash 5\ndkms 3.2.1\nkernel-devel 5.14.0\n")
        done = host.run(rhel("9.6"), "remove")
        assert done.returncode == 0, done.stderr
        assert host.packages() == {"bash": "5"}
        assert "rpm -e gpg-pubkey-d42d0685" in host.asked("rpm -e")


class TestAnUpgradeThatFails:
    def test_puts_the_release_that_was_there_back_and_says_so(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path, OLD)
        # the new module does not compile
        dkms = host.folder / "bin" / "dkms"
        dkms.write_text(f"#!/bin/sh\ncd {tmp_path}; grep -q 'dkms 595' installed || touch built\n")
        done = host.run(rhel("9.6"), "install")
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("driver: release 580.95.05, which was there before, is back. ")
        assert {name: host.packages()[name] for name in OLD} == OLD
        assert "dnf versionlock add" in " ".join(host.asked("dnf versionlock"))

    def test_says_so_when_even_that_fails(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path, OLD)
        (host.folder / "bin" / "dkms").write_text("#!/bin/sh\nexit 1\n")
        dnf = host.folder / "bin" / "dnf"
        dnf.write_text(
            dnf.read_text().replace('case "$*" in', 'case "$*" in *allowerasing*kmod*580*) exit 1 ;;', 1)
        )
        done = host.run(rhel("9.6"), "install")
        assert "release 580.95.05, which was there before, could not be put back either" in done.stderr

    def test_before_anything_is_replaced_leaves_its_stream_and_its_locks(self, tmp_path: Path) -> None:
        host = Sandbox(tmp_path, OLD)
        host.write("dnf-refuses", dnf_said("no-match"))
        done = host.run(rhel("9.6"), "install")
        assert "it could not be installed: Unable to find a match" in done.stderr
        assert host.packages() == OLD
        steps = host.asked("dnf module", "dnf versionlock")
        assert steps[-4:] == [
            "dnf module reset nvidia-driver",
            "dnf module enable nvidia-driver:580-open",
            "dnf versionlock delete kmod-nvidia-open-dkms nvidia-driver-cuda",
            "dnf versionlock add kmod-nvidia-open-dkms nvidia-driver-cuda",
        ]


class TestApt:
    def test_says_in_one_sentence_what_cannot_be_resolved(self, host: Sandbox) -> None:
        host.write("unresolved", UNMET)
        done = host.run(machine(), "install", source="distribution")
        assert done.returncode == 1
        assert done.stderr == (
            "driver: open modules of branch 535 cannot be installed, the package sources have not what it "
            "depends on: nvidia-open-kernel-dkms needs firmware-nvidia-gsp (= 535.261.03) or "
            "firmware-nvidia-gsp-535.261.03 and nvidia-open-kernel-support--v1. Set driver.source to nvidia, "
            "or driver.modules to proprietary.\n"
        )
        assert host.packages() == {}

    def test_says_which_package_the_sources_do_not_have(self, host: Sandbox) -> None:
        host.write("unresolved", "E: Unable to locate package nvidia-kernel-open-dkms\n")
        done = host.run(machine(), "install")
        assert "cannot be installed, the package sources have no nvidia-kernel-open-dkms. Set" in done.stderr

    @pytest.mark.parametrize(
        ("program", "asked", "words"),
        [
            ("apt-get", "update", "E: Could not get lock /var/lib/apt/lists/lock. It is held by apt"),
            ("dpkg", "--configure", "dpkg: error: dpkg frontend lock was locked by another process"),
        ],
    )
    def test_waits_for_the_hosts_own_updates(
        self, host: Sandbox, program: str, asked: str, words: str
    ) -> None:
        host.write("held", words)
        file = host.folder / "bin" / program
        refusal = f'case "$*" in *{asked}*) if [ -e held ]; then cat held >&2; exit 100; fi ;; esac'
        file.write_text(file.read_text().replace(">>asked\n", f">>asked\n{refusal}\n", 1))
        sleep = host.folder / "bin" / "sleep"
        sleep.write_text(f"#!/bin/sh\nrm {host.folder}/held\n")
        sleep.chmod(0o755)
        done = host.run(machine(), "install")
        assert done.returncode == 0, done.stderr
        assert "package index" not in done.stderr
        assert len([line for line in host.asked(program) if asked in line]) == 2

    def test_takes_a_fabric_manager_of_the_very_release(self, host: Sandbox) -> None:
        lines = [
            f"{name} | {release}-1 | https://mirror Packages"
            for name in ("nvidia-fabricmanager", "libnvidia-nscq")
            for release in ("595.80.01", "595.71.05", "595.58.03")
        ]
        host.write("madison", "\n".join(lines) + "\n")
        done = host.run(machine(device=H100, count=8), "install")
        assert done.returncode == 0, done.stderr
        assert host.packages()["nvidia-fabricmanager"] == "595.71.05-1"

    def test_refuses_a_fabric_manager_of_another_release(self, host: Sandbox) -> None:
        host.write("madison", "nvidia-fabricmanager | 595.58.03-1 | https://mirror Packages\n")
        done = host.run(machine(device=H100, count=8), "install")
        assert done.returncode == 1
        assert "the package sources have no nvidia-fabricmanager of release 595.71.05" in done.stderr
        assert host.packages() == {}

    def test_trusts_the_pinned_keyring_alone(self, host: Sandbox) -> None:
        host.write("wrong-hash", "")
        done = host.run(machine(), "install")
        assert done.stderr.endswith(
            "cuda-keyring_1.1-1_all.deb has not the pinned sha256. Correct sources.nvidia.\n"
        )

    def test_names_the_repository_with_its_own_key(self, host: Sandbox) -> None:
        host.run(machine(), "install")
        (entry,) = (host.folder / "etc/apt/sources.list.d").iterdir()
        assert entry.read_text().endswith(
            "bringup-nvidia.gpg] https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64"
            "/ /\n"
        )


HELD = {"nvidia-driver-cuda": "595.71.05-1", "nvidia-kernel-open-dkms": "595.71.05-1"}


class TestALock:
    def offer(self, host: Sandbox, *revisions: str) -> None:
        lines = [f"{name} | {one} | https://mirror Packages" for name in HELD for one in revisions]
        host.write("madison", "\n".join(lines) + "\n")

    def test_has_its_very_packages_installed_where_newer_ones_are_offered(self, host: Sandbox) -> None:
        self.offer(host, "595.71.05-2", "595.71.05-1")
        done = host.run(machine(), "install", version="595.71.05", versions=HELD)
        assert done.returncode == 0, done.stderr
        assert {name: host.packages()[name] for name in HELD} == HELD

    def test_moves_a_package_that_is_there_at_another_version(self, host: Sandbox) -> None:
        there = dict.fromkeys(HELD, "595.71.05-2")
        host.write("installed", "".join(f"{name} {version}\n" for name, version in there.items()))
        self.offer(host, "595.71.05-2", "595.71.05-1")
        done = host.run(machine(), "install", version="595.71.05", versions=HELD)
        assert done.returncode == 0, done.stderr
        assert {name: host.packages()[name] for name in HELD} == HELD

    def test_names_the_package_and_version_that_can_no_longer_be_had(self, host: Sandbox) -> None:
        self.offer(host, "595.71.05-2")
        done = host.run(machine(), "install", version="595.71.05", versions=HELD)
        assert done.returncode == 1
        assert done.stderr == (
            "driver: the package sources have no nvidia-driver-cuda 595.71.05-1 any more, which the lock "
            "has. Name a mirror that keeps it in sources.nvidia, or run `python -m plan lock --upgrade "
            "driver`.\n"
        )
        assert host.packages() == {}

    def test_lets_nothing_else_come_along_at_another_version(self, host: Sandbox) -> None:
        held = HELD | {"libcuda1": "595.71.05-1"}
        self.offer(host, "595.71.05-1")
        apt = host.folder / "bin" / "apt-get"
        apt.write_text(
            apt.read_text().replace("echo 'Inst", "echo 'Inst libcuda1 (595.71.05-2 N)'; echo 'Inst")
        )
        done = host.run(machine(), "install", version="595.71.05", versions=held)
        assert "the package sources have no libcuda1 595.71.05-1 any more, which the lock has" in done.stderr
        assert host.packages() == {}

    def test_is_asked_of_dnf_by_version_and_release(self, host: Sandbox) -> None:
        held = {"kmod-nvidia-open-dkms": "595.71.05-1.el9", "nvlsm": "2025.03.1-1"}
        host.run(rhel("9.6", B200, 8), "install", version="595.71.05", versions=held)
        (line,) = host.asked("dnf install")
        assert {"kmod-nvidia-open-dkms-595.71.05-1.el9", "nvlsm-2025.03.1-1"} <= {*line.split()}
        assert "nvidia-driver-cuda-595.71.05" in line.split()


class TestLoading:
    RUNNING = ("nvidia-persistenced.service", "nvidia-fabricmanager.service", "vllm-chat.service")

    @pytest.fixture
    def ready(self, host: Sandbox) -> Sandbox:
        """A driver that is installed and is to be put to work; the fabric manager is no unit of the plan."""
        host.write("installed", "nvidia-kernel-open-dkms 595.71.05-1\n")
        host.write("etc/systemd/system/vllm-chat.service", "")
        uname = host.folder / "bin" / "uname"
        uname.write_text("#!/bin/sh\necho 6.1.0-56-amd64\n")
        systemctl = host.folder / "bin" / "systemctl"
        active = "|".join(f"*{unit}" for unit in self.RUNNING)
        body = f'case "$*" in "is-active "*) case "$*" in {active}) echo active ;; esac ;; esac'
        systemctl.write_text(f'#!/bin/sh\ncd {host.folder}\necho "systemctl $*" >>asked\n{body}\n')
        uname.chmod(0o755)
        return host

    def holds(self, host: Sandbox, process: int, unit: str) -> None:
        """A process of that unit has a GPU open."""
        host.write(f"proc/{process}/cgroup", f"0::/system.slice/{unit}\n")
        host.write(f"proc/{process}/comm", "python3\n")
        (host.folder / f"proc/{process}/fd").mkdir()
        (host.folder / f"proc/{process}/fd/7").symlink_to("/dev/nvidia0")

    def test_waits_for_a_reboot_where_the_module_is_in_use(self, ready: Sandbox) -> None:
        ready.write("sys/module/nvidia/holders/nvidia_uvm", "")
        for process, unit in enumerate(self.RUNNING, start=40):
            self.holds(ready, process, unit)
        done = ready.run(machine(), "start")
        assert done.returncode == 3
        assert done.stderr == "driver: only a reboot helps: nvidia is in use and cannot be unloaded\n"
        assert (ready.folder / "run/bringup/reboot-pending").read_text().startswith("nvidia is in use")
        asked = ready.asked("systemctl")
        for unit in self.RUNNING:
            assert asked.index(f"systemctl stop {unit}") < asked.index(f"systemctl --no-block start {unit}")

    def test_stops_nothing_where_a_program_that_is_none_of_ours_holds_a_gpu(self, ready: Sandbox) -> None:
        self.holds(ready, 40, "vllm-chat.service")
        self.holds(ready, 812, "jupyter.service")
        # of a run that was cut
        ready.write("etc/bringup/driver/stopped", "nvidia-imex.service\n")
        done = ready.run(machine(), "start")
        assert (done.returncode, done.stderr) == (
            1,
            "driver: python3 (pid 812) uses the GPUs and is none of ours. Stop it, run again.\n",
        )
        assert not [line for line in ready.asked("systemctl") if " stop " in line]
        assert "systemctl --no-block start nvidia-imex.service" in ready.asked("systemctl")

    def test_starts_too_what_a_run_that_was_cut_has_stopped(self, ready: Sandbox) -> None:
        ready.write("etc/bringup/driver/stopped", "nvidia-imex.service\n")
        ready.write("sys/module/nvidia/holders/nvidia_uvm", "")
        ready.run(machine(), "start")
        asked = ready.asked("systemctl --no-block")
        assert [line.split()[-1] for line in asked] == [
            "nvidia-imex.service",
            "nvidia-fabricmanager.service",
            "nvidia-persistenced.service",
            "vllm-chat.service",
        ]
