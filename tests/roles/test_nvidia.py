"""The driver's part of a deploy, on fake hosts: what is sent, in which order, and where a host ends."""

from dataclasses import replace
from pathlib import Path

import pytest

from plan import lock, lock_diff
from plan.seen import Seen
from tests import probes
from tests.plan.locks import locked
from tests.probes import with_block
from tests.roles.fleet import Answer, FakeHost, Run, deploy
from tests.roles.served import written

KERNEL = "6.8.0-45-generic"
CAPTURES = Path(__file__).parents[1] / "plan" / "captures"
MODEL = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}
# /etc/os-release as the distributions publish it
UBUNTU = [
    "ID=ubuntu",
    "ID_LIKE=debian",
    'VERSION_ID="24.04"',
    "VERSION_CODENAME=noble",
    "PRETTY_NAME=Ubuntu 24.04",
]
ROCKY = ['ID="rocky"', 'ID_LIKE="rhel centos fedora"', 'VERSION_ID="9.6"', 'PRETTY_NAME="Rocky Linux 9.6"']
INSTALLED = [
    "libnvidia-compute hi  595.71.05-1ubuntu1",
    "nvidia-dkms-open hi  595.71.05-1ubuntu1",
    "nvidia-persistenced hi  595.71.05-1ubuntu1",
]
BUILT = f"{KERNEL} image installed 595.71.05"


def probed(
    *packages: str,
    kernel: str = f"{KERNEL} image offered -",
    driver: str = "",
    modules: str = "",
    os: list[str] = UBUNTU,
    notes: tuple[str, ...] = (),
) -> str:
    """The probe's text of a host with an L4, whose kernel is its distribution's."""
    text = probes.answer(probes.BARE)
    blocks = {
        "os": os,
        "kernel": [kernel.split()[0], "x86_64"],
        "virt": ["none"],
        "pci": ["0000:00:04.0 0x10de 0x27b8 0x030200"],
        "driver": [driver] if driver else [],
        "modules": [modules] if modules else [],
    }
    for name, lines in blocks.items():
        text = with_block(text, name, *lines)
    later = {
        "driver_packages": list(packages),
        "kernels": [kernel],
        "boot": [f"link /boot/vmlinuz-{kernel.split()[0]}"],
        "driver_notes": list(notes),
    }
    new = "".join(f"@@{name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in later.items())
    return text.replace("@@listening\n", f"{new}@@listening\n")


SMI = (CAPTURES / "tesla-t4-v11.xml").read_text().replace("515.105.01", "595.71.05")
REMAP = "<remapped_rows><remapped_row_pending>Yes</remapped_row_pending></remapped_rows></gpu>"
GPU = "GPU-d37e67a5-91dd-3774-a5cb-99096249601a"
LOST = "NVRM: Xid (PCI:0000:00:1e): 79, pid=1187, name=python, GPU has fallen off the bus."


def ailing(log: str = "") -> str:
    """A T4 as planned, whose memory waits for a reset, or of which the kernel says that it is lost."""
    text = probed(*INSTALLED, kernel=BUILT, driver="595.71.05", modules="nvidia")
    text = with_block(text, "smi", *(SMI if log else SMI.replace("</gpu>", REMAP)).splitlines())
    text = text.replace("@@listening\n", f"@@kernel_log\n{log}\n@@listening\n")
    return with_block(text, "pci", "0000:00:1e.0 0x10de 0x1eb8 0x030200")


class TestALock:
    """Hosts whose lock has the driver to the package."""

    offers = (
        "release 595.58.03\npackage libnvidia-compute 595.58.03-1\npackage nvidia-dkms-open 595.58.03-1\n"
    )
    bare = Seen("@fake/bare", MODEL, probed(), driver=offers)
    held = locked(bare).lock

    def test_has_release_and_packages_as_the_source_offered_them(self) -> None:
        (name,) = self.held.driver
        assert name == self.held.hosts["@fake/bare"].driver
        assert name == "595.58.03 open of nvidia for ubuntu24.04 x86_64"
        assert self.held.driver[name].packages["nvidia-dkms-open"] == "595.58.03-1"

    def test_stays_when_a_newer_one_is_offered_until_it_is_upgraded(self) -> None:
        newer = replace(self.bare, driver=self.offers.replace("595.58.03", "595.71.05"))
        assert locked(newer, old=self.held).lock == self.held
        moved = locked(newer, old=self.held, upgrades=("driver",)).lock
        assert [line.strip() for line in lock_diff.lines(self.held, moved)][1:] == [
            "driver 595.58.03 open of nvidia for ubuntu24.04 x86_64 becomes "
            "595.71.05 open of nvidia for ubuntu24.04 x86_64",
            "driver package libnvidia-compute 595.58.03-1 becomes 595.71.05-1",
            "driver package nvidia-dkms-open 595.58.03-1 becomes 595.71.05-1",
        ]

    def test_is_what_a_deploy_installs(self) -> None:
        run = deploy(FakeHost("bare", probed(), MODEL), lock=lock.render(self.held, "fleet.py"))
        plan = run.files("bare")["/etc/bringup/driver/plan"]
        assert "pinned=595.58.03\n" in plan
        assert "versions='libnvidia-compute=595.58.03-1 nvidia-dkms-open=595.58.03-1'" in plan
        preferences = run.files("bare")["/etc/apt/preferences.d/bringup-nvidia"]
        assert "Package: libnvidia-compute\nPin: version 595.58.03-1\nPin-Priority: 1001\n\n" in preferences

    def in_a_bundle(self) -> lock.Lock:
        """The lock with files of the driver and of the system, as a bundle has them."""
        where = "'http://x.example/{0}' {0} 5 SHA256:0\n"
        stanza = "Filename: pool/{0}\nSize: 5\nSHA256: {1}\n"
        deb, curl = "nvidia-dkms-open_595.58.03-1_all.deb", "curl_8-1_all.deb"
        offers = f"{self.offers}{where.format(deb)}{stanza.format(deb, 'd' * 64)}"
        packages = f"{where.format(curl)}\n{stanza.format(curl, 'c' * 64)}"
        made = locked(replace(self.bare, driver=offers, packages=packages)).lock
        models = {name: one.model_copy(update={"commit": "c" * 40}) for name, one in made.model.items()}
        return made.model_copy(update={"model": models})

    def test_in_a_bundle_is_installed_from_there(self) -> None:
        made, deb = self.in_a_bundle(), "nvidia-dkms-open_595.58.03-1_all.deb"
        data = MODEL | {"sources": {"bundle": "/media/bundle"}}
        run = deploy(FakeHost("bare", probed(), data), lock=lock.render(made, "fleet.py"))
        folder = "packages/595.58.03-open-of-nvidia-for-ubuntu24.04-x86_64"
        files = run.files("bare")
        assert f"file:/media/bundle/{folder} ./\n" in files["/etc/bringup/apt.d/bundle.list"]
        assert "repository=''\n" in files["/etc/bringup/driver/plan"]
        wanted = files["/run/bringup/bundle-wanted"]
        assert f"{folder}/{deb} {'d' * 64}\n" in wanted and f"={folder}/Packages\n" in wanted
        # a lock without them is of no use there
        without = made.model_copy(
            update={"packages": {"ubuntu24.04 x86_64": made.packages["ubuntu24.04 x86_64"]}}
        )
        run = deploy(FakeHost("bare", probed(), data), lock=lock.render(without, "fleet.py"))
        assert run.kinds("bare") == ["probe"]
        assert "the lock has no packages of the NVIDIA driver" in " ".join(run.output.split())

    @pytest.mark.parametrize("has_driver", [True, False])
    def test_in_a_bundle_brings_what_tests_its_gpus(self, has_driver: bool) -> None:
        there = [line.replace("595.71.05-1ubuntu1", "595.58.03-1") for line in INSTALLED]
        built = BUILT.replace("595.71.05", "595.58.03")
        served = probed(*there, kernel=built, driver="595.58.03", modules="nvidia")
        data = MODEL | {"sources": {"bundle": "/media/bundle"}, "burn_in": {"level": 1}}
        host = FakeHost("bare", served if has_driver else probed(), data)
        run = deploy(host, lock=lock.render(self.in_a_bundle(), "fleet.py"))
        assert ("start driver" in run.kinds("bare")) != has_driver
        folder = "packages/595.58.03-open-of-nvidia-for-ubuntu24.04-x86_64"
        assert f"={folder}/Packages\n" in run.files("bare")["/run/bringup/bundle-wanted"]
        (install,) = (x.command for x in run.execs["bare"] if "--unit=bringup-dcgm.service" in x.command)
        assert "Dir::Etc::SourceList=/etc/bringup/apt.list" in install
        assert "Dir::Etc::SourceParts=/etc/bringup/apt.d" in install
        assert "DCGM cannot be installed from the bundle." in install

    def test_in_a_bundle_is_installed_from_there_on_rhel(self) -> None:
        dnf = Path(__file__).with_name("dnf")
        rocky = probed(os=ROCKY, kernel="5.14.0-570.el9.x86_64 image unknown -")
        offers, packages = ((dnf / name).read_text() for name in ("driver-closure.txt", "closure.txt"))
        made = locked(Seen("@fake/bare", MODEL, rocky, driver=offers, packages=packages)).lock
        models = {name: one.model_copy(update={"commit": "c" * 40}) for name, one in made.model.items()}
        held = lock.render(made.model_copy(update={"model": models}), "fleet.py")
        data = MODEL | {"sources": {"bundle": "/media/bundle"}, "burn_in": {"level": 1}}
        run = deploy(FakeHost("bare", rocky, data), lock=held)
        (install,) = (x.command for x in run.execs["bare"] if "--unit=bringup-dcgm.service" in x.command)
        assert "--setopt=reposdir=/etc/bringup/yum.repos.d install datacenter-gpu-manager" in install
        files = run.files("bare")
        folder = "packages/595.71.05-open-of-nvidia-for-rhel9-x86_64"
        assert f"baseurl=file:///media/bundle/{folder}\n" in files["/etc/bringup/yum.repos.d/bundle.repo"]
        assert "/etc/yum.repos.d/bringup-nvidia.repo" not in files
        plan = files["/etc/bringup/driver/plan"]
        for line in ("pinned=595.71.05", "repository=''", "stream=''"):
            assert f"{line}\n" in plan
        assert "dnf_options=--setopt=reposdir=/etc/bringup/yum.repos.d\n" in plan
        assert (
            f"{folder}/kmod-nvidia-open-dkms-595.71.05-1.el9.noarch.rpm "
            in files["/run/bringup/bundle-wanted"]
        )

    def test_refuses_another_release(self) -> None:
        other = MODEL | {"driver": {"version": "595.71.05"}}
        run = deploy(FakeHost("bare", probed(), other), lock=lock.render(self.held, "fleet.py"))
        assert run.kinds("bare") == ["probe"]
        assert "has driver 595.58.03 for it, and its plan has 595.71.05. Run" in " ".join(run.output.split())

    def test_moves_a_host_that_has_another_revision(self) -> None:
        text = probed(*INSTALLED, kernel=BUILT, driver="595.71.05", modules="nvidia")
        held = locked(Seen("@fake/there", MODEL, text)).lock
        (driver,) = held.driver.values()
        assert driver.packages["nvidia-persistenced"] == "595.71.05-1ubuntu1"
        moved = text.replace(
            "nvidia-persistenced hi  595.71.05-1ubuntu1", "nvidia-persistenced hi  595.71.05-2"
        )
        run = deploy(FakeHost("there", moved, MODEL), lock=lock.render(held, "fleet.py"))
        assert tasks(run, "there")[0] == "install"
        same = deploy(FakeHost("there", text, MODEL), lock=lock.render(held, "fleet.py"))
        assert "install" not in tasks(same, "there")


@pytest.fixture(scope="module")
def fleet() -> Run:
    """Hosts in every state of their driver, in one run."""
    waiting = probed(*INSTALLED, kernel=BUILT, modules="nouveau")
    boots = Answer(r"^cat /proc/sys/kernel/random/boot_id$", "one", then="two")
    return deploy(
        FakeHost("bare", probed(), MODEL),
        FakeHost("rocky", probed(os=ROCKY, kernel="5.14.0-570.el9.x86_64 image unknown -"), MODEL),
        FakeHost("nouveau", probed(modules="nouveau"), MODEL),
        FakeHost("waiting", waiting, MODEL),
        FakeHost("allowed", waiting, MODEL | {"driver": {"reboot": "allowed"}}, (boots,)),
        FakeHost("mismatch", probed(*INSTALLED, kernel=BUILT, driver="595.58.03"), MODEL),
        FakeHost(
            "unloadable",
            probed(*INSTALLED, kernel=BUILT, driver="595.58.03"),
            MODEL | {"driver": {"reboot": "allowed"}},
            (boots,),
        ),
        FakeHost("ails", ailing(), MODEL),
        FakeHost("tested", ailing(), MODEL | {"burn_in": {"level": 1}}),
        FakeHost("lost", ailing(log=LOST), MODEL | {"driver": {"reboot": "allowed"}}, (boots,)),
        FakeHost("fails", probed(), MODEL, (Answer(r"state=.*bringup-driver", "failed"),)),
    )


FILES = {
    "/opt/bringup/bin/driver",
    "/etc/bringup/driver/plan",
    "/etc/modprobe.d/bringup-nvidia.conf",
    "/etc/systemd/system/nvidia-persistenced.service.d/bringup.conf",
}


def tasks(run: Run, host: str) -> list[str]:
    """What the driver's program was asked to do on a host, in order."""
    return [
        trip.command.partition("/opt/bringup/bin/driver ")[2].partition("'")[0].partition(";")[0]
        for trip in run.execs[host]
        if "systemd-run" in trip.command and "/opt/bringup/bin/driver " in trip.command
    ]


class TestABareHost:
    def test_gets_the_driver_before_everything_that_stands_on_it(self, fleet: Run) -> None:
        assert tasks(fleet, "bare") == ["install", "start"]
        kinds = fleet.kinds("bare")
        assert kinds.index("join driver") < kinds.index("start conda")
        assert "service restart" in kinds

    def test_gets_what_keeps_others_from_the_card_and_the_driver_from_upgrades(self, fleet: Run) -> None:
        written = fleet.files("bare")
        apt = {"/etc/apt/preferences.d/bringup-nvidia", "/etc/apt/apt.conf.d/52bringup-nvidia"}
        assert set(written) >= FILES | apt
        for rival in ("nouveau", "nova_core"):
            assert f"blacklist {rival}\n" in written["/etc/modprobe.d/bringup-nvidia.conf"]
        pin = written["/etc/apt/preferences.d/bringup-nvidia"]
        assert "Pin: version 595.*\nPin-Priority: 1000\n" in pin
        assert '"nvidia";' in written["/etc/apt/apt.conf.d/52bringup-nvidia"]

    def test_gets_a_repository_and_what_dracut_leaves_out_on_rhel(self, fleet: Run) -> None:
        written = fleet.files("rocky")
        assert set(written) >= FILES | {"/etc/dracut.conf.d/90-bringup-nvidia.conf"}
        assert (
            "baseurl=https://developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64\n"
            in written["/etc/yum.repos.d/bringup-nvidia.repo"]
        )
        assert not [path for path in written if path.startswith("/etc/apt")]


class TestAReboot:
    def test_that_is_not_allowed_ends_the_host_after_the_installation(self, fleet: Run) -> None:
        assert tasks(fleet, "nouveau") == ["install"]
        assert fleet.execs["nouveau"][-1].command.startswith("mkdir -p /run/bringup && echo 'nouveau holds")
        assert "reboot pending: driver: branch 595 is installed and starts with the next boot" in fleet.output
        assert "start conda" not in fleet.kinds("nouveau")

    def test_that_is_waited_for_costs_one_trip_and_is_said_again(self, fleet: Run) -> None:
        assert fleet.kinds("waiting") == ["probe"]
        assert "refused: @fake/waiting: driver: 595.71.05 is installed and starts with the" in fleet.output

    def test_that_is_allowed_stops_services_first_and_compares_boots(self, fleet: Run) -> None:
        commands = [trip.command for trip in fleet.execs["allowed"]]
        stop = commands.index("sh /opt/bringup/bin/driver before_reboot 2>&1")
        reboot = next(n for n, command in enumerate(commands) if "systemctl reboot" in command)
        assert commands[stop - 1] == "cat /proc/sys/kernel/random/boot_id"
        assert reboot == stop + 1
        assert commands[reboot + 1] == "cat /proc/sys/kernel/random/boot_id"
        assert tasks(fleet, "allowed") == ["settle"]
        assert "service restart" in fleet.kinds("allowed")

    def test_follows_at_once_where_the_module_turns_out_to_be_in_use(self, fleet: Run) -> None:
        commands = [trip.command for trip in fleet.execs["unloadable"]]
        assert any("--property=SuccessExitStatus=3" in command for command in commands)
        assert "test -e /run/bringup/reboot-pending" in commands
        assert tasks(fleet, "unloadable") == ["start", "settle"]


def test_dcgm_is_held_with_the_driver_from_its_installation_on(fleet: Run) -> None:
    (install,) = (
        trip.command for trip in fleet.execs["tested"] if "--unit=bringup-dcgm.service" in trip.command
    )
    assert install.index("datacenter-gpu-manager-4") < install.index("sh /opt/bringup/bin/driver hold")


class TestGpusThatAil:
    def test_are_reset_before_anything_stands_on_them(self, fleet: Run) -> None:
        assert tasks(fleet, "ails") == [f"mend {GPU}"]
        kinds = fleet.kinds("ails")
        assert kinds.index("join driver") < kinds.index("start conda")
        assert "systemctl reboot" not in " ".join(trip.command for trip in fleet.execs["ails"])

    def test_are_named_with_what_is_done(self, fleet: Run) -> None:
        words = " ".join(fleet.output.split())
        assert "resets 1, its services stopped" in words
        assert "faulty memory waits to be taken out of use" in words

    def test_that_only_a_reboot_helps_are_written_down_before_it_and_looked_at_after(
        self, fleet: Run
    ) -> None:
        commands = [trip.command for trip in fleet.execs["lost"]]
        stop = commands.index(f"sh /opt/bringup/bin/driver before_reboot {GPU} 2>&1")
        assert "systemctl reboot" in commands[stop + 1]
        assert tasks(fleet, "lost") == ["settle"]
        assert "service restart" in fleet.kinds("lost")


class TestAHostWithADriver:
    def test_of_nvlink_5_has_what_its_fabric_manager_looks_for_before_that_starts(self) -> None:
        beside = [f"{name} hi  595.71.05-1" for name in ("nvidia-fabricmanager", "libnvidia-nscq", "nvlsm")]
        text = probed(*INSTALLED, *beside, kernel=BUILT, driver="595.71.05", modules="nvidia")
        text = with_block(text, "pci", *(f"0000:{n}b:00.0 0x10de 0x2901 0x030200" for n in range(8)))
        run = deploy(FakeHost("b200", text))
        assert tasks(run, "b200") == ["modules"]
        commands = [trip.command for trip in run.execs["b200"]]
        (start,) = (n for n, command in enumerate(commands) if "restart nvidia-fabricmanager" in command)
        assert any("driver modules" in command for command in commands[:start])

    def test_that_a_reboot_has_helped_is_rebooted_again_when_that_is_needed(self) -> None:
        notes = ("rebooted another-boot 595.71.05",)
        text = probed(*INSTALLED, kernel=BUILT, driver="595.71.05", modules="nvidia", notes=notes)
        assert tasks(deploy(FakeHost("cut", text, MODEL)), "cut") == ["forget driver"]

    def test_of_another_release_than_its_libraries_loads_it_anew(self, fleet: Run) -> None:
        assert tasks(fleet, "mismatch") == ["start"]

    def test_that_cannot_be_installed_fails_alone_and_goes_no_further(self, fleet: Run) -> None:
        assert fleet.kinds("fails")[-1] == "journal bringup-driver.service"
        assert "start conda" not in fleet.kinds("fails")
        assert fleet.code == 1


def test_a_dry_run_shows_per_host_what_is_installed_held_and_rebooted() -> None:
    run = deploy(FakeHost("gpu", probed(modules="nouveau"), MODEL), options=("--dry", "-y"))
    words = " ".join(run.output.split())
    for said in (
        "installs libnvidia-compute nvidia-dkms-open",
        f"builds the module for {KERNEL}",
        "holds what belongs to it",
        "waits for yours",
        "nouveau holds the card",
    ):
        assert said in words
    assert run.kinds("gpu") == ["probe"]


def test_an_absent_driver_is_removed_by_the_program_that_brought_it() -> None:
    notes = ("added libnvidia-compute nvidia-dkms-open dkms",)
    text = probed(*INSTALLED, kernel=BUILT, driver="595.71.05", notes=notes)
    run = deploy(FakeHost("gpu", text, {"driver": {"state": "absent"}}))
    assert tasks(run, "gpu") == ["remove"]
    again = deploy(FakeHost("gpu", probed(), {"driver": {"state": "absent"}}))
    assert tasks(again, "gpu") == []


def test_a_host_whose_driver_is_as_planned_costs_one_trip(fleet: Run) -> None:
    paths, hashes = written(fleet.execs["mismatch"])
    text = probed(*INSTALLED, kernel=BUILT, driver="595.71.05", modules="nvidia")
    blocks = {
        "packages": [f"{name} ii  1.0-1" for name in ("ca-certificates", "curl", "libnuma1")],
        "paths": paths,
        "hashes": hashes,
        "units": [
            "Id=nvidia-persistenced.service",
            "ActiveState=active",
            "SubState=running",
            "UnitFileState=enabled",
            "NeedDaemonReload=no",
            "",
        ],
    }
    for name, lines in blocks.items():
        text = with_block(text, name, *lines)
    run = deploy(FakeHost("gpu", text))
    # what the whole host is, is written down when it is first looked at
    assert [kind for kind in run.kinds("gpu") if kind != "stamp" and "plan.json" not in kind] == ["probe"]
    stopped = text.replace("ActiveState=active", "ActiveState=failed")
    mended = deploy(FakeHost("gpu", stopped)).kinds("gpu")
    assert "service restart" in mended
