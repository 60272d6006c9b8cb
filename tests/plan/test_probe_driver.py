"""What the probe says of a driver: packages, flavours, the kernel that the boot loader starts next."""

import pytest

from plan.probe import parse
from plan.probe_driver import InstalledDriver
from tests import probes
from tests.probes import with_block

BARE = probes.answer(probes.BARE)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build"
PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.309.01  Mon Mar 23 00:00:00 UTC 2026"
KERNELS = ["6.1.0-52-amd64 image installed 535.309.01", "6.1.0-56-amd64 image offered -"]

# the lines of Debian's and Ubuntu's grub.cfg that name kernels, cut as the probe cuts them
MENU = """grub set default="0"
grub menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-9a' {
grub \tlinux\t/boot/vmlinuz-6.1.0-56-amd64 root=UUID=9a ro quiet
grub submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-9a' {
grub \tmenuentry 'Debian GNU/Linux, with Linux 6.1.0-56-amd64' $menuentry_id_option 'gnulinux-6.1.0-56-9a' {
grub \t\tlinux\t/boot/vmlinuz-6.1.0-56-amd64 root=UUID=9a ro quiet
grub \tmenuentry 'Debian GNU/Linux, with Linux 6.1.0-52-amd64' $menuentry_id_option 'gnulinux-6.1.0-52-9a' {
grub \t\tlinux\t/boot/vmlinuz-6.1.0-52-amd64 root=UUID=9a ro quiet""".splitlines()


def found(**blocks: list[str]) -> InstalledDriver:
    text = BARE
    for name, lines in blocks.items():
        block = "\n".join([f"@@{name}", *lines, "@@listening\n"])
        text = text.replace("@@listening\n", block)
    return parse(text).nvidia


@pytest.mark.parametrize(("line", "flavour"), [(OPEN, "open"), (PROPRIETARY, "proprietary"), ("", None)])
def test_the_flavour_of_the_loaded_modules_is_what_they_call_themselves(
    line: str, flavour: str | None
) -> None:
    assert parse(with_block(BARE, "driver_file", line)).nvidia.flavour == flavour


def test_a_probe_of_an_older_version_says_that_nothing_is_there() -> None:
    assert parse(BARE).nvidia.packages == {}
    assert parse(BARE).nvidia.next_kernel is None


class TestPackages:
    installed = found(
        driver_packages=[
            "nvidia-kernel-dkms hi  535.309.01-0+deb12u1",
            "libcuda1 ii  535.309.01-0+deb12u1",
            "nvidia-persistenced ii  535.171.04-1~deb12u1",
            "nvidia-kernel-common ii  20220217+3~deb12u1",
            "nvidia-smi iF  535.309.01-0+deb12u1",
            "nvidia-driver un  ",
            "libnvidia-cfg1 rc  535.300.01-1",
        ]
    )

    def test_that_are_removed_or_only_known_do_not_count(self) -> None:
        assert "nvidia-driver" not in self.installed.packages
        assert "libnvidia-cfg1" not in self.installed.packages

    def test_that_must_be_of_one_release_are_told_from_those_with_numbers_of_their_own(self) -> None:
        assert set(self.installed.parts) == {"nvidia-kernel-dkms", "libcuda1", "nvidia-smi"}
        assert self.installed.release == "535.309.01"

    def test_tell_whether_they_are_held(self) -> None:
        assert [name for name, package in self.installed.packages.items() if package.held] == [
            "nvidia-kernel-dkms"
        ]

    def test_tell_the_flavour_of_modules_that_are_not_loaded(self) -> None:
        assert self.installed.installed_flavour == "proprietary"
        both = found(driver_packages=["kmod-nvidia-open-dkms ii 3:580.95.05-1.el9"])
        assert (both.installed_flavour, both.release) == ("open", "580.95.05")


class TestTheNextKernel:
    @pytest.mark.parametrize(
        ("default", "kernel"),
        [
            ("0", "6.1.0-56-amd64"),
            ("1>1", "6.1.0-52-amd64"),
            ("gnulinux-advanced-9a>gnulinux-6.1.0-52-9a", "6.1.0-52-amd64"),
            ("Debian GNU/Linux, with Linux 6.1.0-52-amd64", "6.1.0-52-amd64"),
        ],
    )
    def test_is_the_entry_that_grub_takes(self, default: str, kernel: str) -> None:
        menu = [f'grub set default="{default}"', *MENU[1:]]
        assert found(kernels=KERNELS, boot=menu).next_kernel == kernel

    def test_is_the_entry_that_was_saved_when_grub_asks_for_it(self) -> None:
        menu = ["saved_entry 1>1", 'grub set default="${saved_entry}"', *MENU[1:]]
        assert found(kernels=KERNELS, boot=menu).next_kernel == "6.1.0-52-amd64"

    def test_is_the_entry_of_this_one_boot_before_every_other(self) -> None:
        assert found(kernels=KERNELS, boot=["next_entry 1>1", *MENU]).next_kernel == "6.1.0-52-amd64"

    def test_is_what_grubby_says_where_there_is_one(self) -> None:
        boot = ["grubby /boot/vmlinuz-5.14.0-570.12.1.el9_6.x86_64"]
        assert found(boot=boot).next_kernel == "5.14.0-570.12.1.el9_6.x86_64"

    def test_is_where_the_link_points_without_a_menu(self) -> None:
        assert found(boot=["link /boot/vmlinuz-6.1.0-52-amd64"]).next_kernel == "6.1.0-52-amd64"

    def test_is_the_newest_that_can_boot_where_nothing_says(self) -> None:
        kernels = ["6.1.0-9-amd64 image installed -", "6.1.0-10-amd64 image installed -", "6.2 - missing -"]
        assert found(kernels=kernels).next_kernel == "6.1.0-10-amd64"


def test_what_the_driver_always_says_is_no_trouble_and_an_xid_is() -> None:
    log = [
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.95.05",
        "nvidia-nvlink: Nvlink Core is being initialized, major device number 510",
        "NVRM: Xid (PCI:0000:3b:00): 79, pid=1187, name=python, GPU has fallen off the bus.",
        "NVRM: API mismatch: the client has the version 580.95.05, but this kernel module has 580.65.06",
    ]
    assert [line.split()[1] for line in found(kernel_log=log).log] == ["Xid", "API"]
