"""Why a host cannot be given the planned driver: each a sentence, before anything is changed."""

from collections.abc import Iterator

from plan import nvidia_table as table
from plan.answer import DriverChoice
from plan.nvidia_table import Names, System
from plan.nvidia_work import in_container
from plan.probe import Probe
from plan.sections import Settings

# Where DKMS keeps the key that it signs modules with, and what makes one.
_KEYS = {
    "ubuntu": ("/var/lib/shim-signed/mok/MOK.der", "update-secureboot-policy --new-key"),
    "debian": ("/var/lib/dkms/mok.pub", "dkms generate_mok"),
    "rhel": ("/var/lib/dkms/mok.pub", "dkms generate_mok"),
}


def refusals(
    settings: Settings, choice: DriverChoice, probe: Probe, system: System | None, found: Names | None
) -> Iterator[str]:
    """What stands against installing or maintaining the driver by packages on this host."""
    if system is None:
        yield (
            f"driver: no packages of it are known for {probe.os_name}. Install it by hand and set "
            "driver.managed to False, or use another system."
        )
        return
    if found is None:
        yield (
            f"driver.branch: {settings.driver.source} has no branch {choice.branch} for {probe.os_name}. "
            "Leave driver.branch out."
        )
        return
    yield from _switches(choice, found, probe)
    yield from _headers(probe)
    if choice.action == "install" or not probe.driver:
        yield from _another_installation(probe)
        yield from _container(probe)
        yield from _secure_boot(probe, system)
        yield from _room(probe)


def _another_installation(probe: Probe) -> Iterator[str]:
    if probe.nvidia.unowned:
        yield (
            f"driver: {probe.nvidia.unowned} belongs to no package: a .run file installed a driver here. "
            "Run `nvidia-uninstall`, reboot, and run again, or set driver.managed to False."
        )


def _container(probe: Probe) -> Iterator[str]:
    if in_container(probe) and not any(kernel.bootable for kernel in probe.nvidia.kernels):
        yield (
            f"driver: this is a container ({probe.virtualization}) without a kernel of its own. Install the "
            "driver on its host and hand the GPUs in, or set driver.managed to False."
        )


def _switches(choice: DriverChoice, found: Names, probe: Probe) -> Iterator[str]:
    if choice.fabric_manager and not found.fabric:
        yield (
            f"driver.source: {probe.os_name} has no fabric manager among its packages, and the NVSwitches "
            "of this board need one. Set it to nvidia."
        )
    if choice.subnet_manager and not found.subnet:
        yield (
            f"driver.branch: {choice.branch} has no NVLink subnet manager (nvlsm) for {probe.os_name}, and "
            "the NVSwitches of this board need one. Leave it out, or set driver.source to nvidia."
        )


def _headers(probe: Probe) -> Iterator[str]:
    """A kernel to boot whose headers cannot be had: no module can be built for it."""
    following = probe.nvidia.next_kernel or probe.kernel
    kernel = probe.nvidia.kernel(following)
    if kernel and kernel.headers == "missing" and kernel.module is None:
        yield (
            f"driver: the kernel {following} has no headers here, and the package sources have none. Install "
            "a kernel of the distribution with its headers, or boot one that is installed."
        )


def _secure_boot(probe: Probe, system: System) -> Iterator[str]:
    if "enabled" not in probe.secure_boot.lower() or "disabled" in probe.secure_boot.lower():
        return
    if "already enrolled" in probe.nvidia.key:
        return
    path, make = _KEYS[system.family]
    first = "" if probe.nvidia.key and probe.nvidia.key != "none" else f"`{make}`, then "
    if first and system.family != "ubuntu":
        first = f"install dkms, run {first}"
    yield (
        f"driver: Secure Boot is on and the key that signs modules here ({path}) is not enrolled: the module "
        f"would be built and never load. On the host: {first}`mokutil --import {path}`, reboot, choose "
        "Enroll MOK at the console; then run again. Or switch Secure Boot off in the firmware."
    )


def _room(probe: Probe) -> Iterator[str]:
    if probe.nvidia.release:
        return
    for path, needed in zip(("/usr", "/boot"), table.room_gib(), strict=True):
        disk = probe.disks.get(path)
        if disk and disk.free_gib < needed:
            yield (
                f"disk: {path} has {disk.free_gib:.2f} GiB free, the driver needs {needed:.2f} there. "
                "Make room, for example by removing old kernels."
            )
