"""What differs between the planned driver and the one on the host, and what puts it to work."""

import re
from collections.abc import Iterator
from dataclasses import replace

from plan.answer import DriverChoice
from plan.nvidia_plan import DriverPlan, DriverWork, Start
from plan.probe import Probe

# What systemd-detect-virt calls a container, as opposed to a virtual machine.
_CONTAINERS = frozenset(
    {"docker", "podman", "lxc", "lxc-libvirt", "systemd-nspawn", "openvz", "container-other", "rkt", "proot"}
)
# Packages that move together; `parts` has only those that must be of one release.
_HELD = re.compile(
    r"(lib|kmod-|dkms-)?nvidia(?!-gpu-firmware$|.*(container|toolkit))|libcuda1|cuda-drivers|firmware-nvidia|nvlsm|libnvsdm|"
    r"xserver-.*nvidia|datacenter-gpu-manager"
)
# Modules that take the card before the driver does.
RIVALS = ("nouveau", "nova_core", "nova_drm")


def belongs(name: str) -> bool:
    """Whether a package moves with the driver."""
    return _HELD.match(name) is not None


def in_container(probe: Probe) -> bool:
    """Whether the host shares the kernel of another."""
    return probe.virtualization in _CONTAINERS


def work(plan: DriverPlan, choice: DriverChoice, probe: Probe) -> DriverPlan:
    """The plan with what is to be done on this host."""
    install = tuple(dict.fromkeys(_install(plan, choice, probe)))
    release = None if choice.action == "install" else plan.version
    build = tuple(_build(plan, release, bool(install), probe))
    start, because = _start(plan, release, install, probe)
    if start and probe.nvidia.waiting and not install:
        # an earlier run has found that loading alone does not do
        start, because = "reboot", probe.nvidia.waiting
    hold = tuple(_hold(probe, plan)) if not install else ()
    return replace(plan, work=DriverWork(install, build, hold, start, because))


def _install(plan: DriverPlan, choice: DriverChoice, probe: Probe) -> Iterator[str]:
    there = probe.nvidia.packages
    yield from (name for name in probe.nvidia.broken if name in there or name.startswith("linux-"))
    if choice.action == "install" and not _as_asked_for(plan, probe):
        yield from plan.packages
    for name in (*plan.packages, *plan.exact, *plan.beside):
        if name not in there:
            yield name
    # one release for all: a library of another one is what "Driver/library version mismatch" is made of
    for name in (*probe.nvidia.parts, *plan.exact):
        package = there.get(name)
        if package and package.release and plan.version and package.release != plan.version:
            yield name


def _as_asked_for(plan: DriverPlan, probe: Probe) -> bool:
    """Whether what is installed is of the pinned release, or of the branch."""
    release = probe.nvidia.release
    if plan.pinned:
        return release == plan.pinned
    return bool(release) and str(release).partition(".")[0] == str(plan.branch)


def _build(plan: DriverPlan, release: str | None, installing: bool, probe: Probe) -> Iterator[str]:
    for version in plan.kernels:
        kernel = probe.nvidia.kernel(version)
        if installing or kernel is None or kernel.module is None or (release and kernel.module != release):
            yield version


def _hold(probe: Probe, plan: DriverPlan) -> Iterator[str]:
    """Installed packages of the driver that an upgrade would move."""
    if plan.manager == "dnf":
        there = (name for name in probe.nvidia.packages if belongs(name))
        yield from sorted(name for name in there if not _locked(name, probe))
        return
    for name, package in sorted(probe.nvidia.packages.items()):
        if belongs(name) and not package.held:
            yield name


def _locked(name: str, probe: Probe) -> bool:
    return any(re.match(rf"{re.escape(name)}-\d", lock) for lock in probe.nvidia.locks)


def _start(
    plan: DriverPlan, release: str | None, install: tuple[str, ...], probe: Probe
) -> tuple[Start, str]:
    """What puts the driver to work, and why; a reboot only where loading the module cannot do."""
    rival = next((name for name in RIVALS if name in probe.modules), None)
    runs_next = probe.kernel in plan.kernels
    if rival:
        return "reboot", f"{rival} holds the card"
    if not runs_next:
        return "reboot", f"the kernel that runs, {probe.kernel}, has no module of it"
    replaced = release is None or any(name in probe.nvidia.modules for name in install)
    if probe.driver is None:
        return "load", _unloaded(probe)
    if replaced and install:
        return "reload", f"the module that is loaded is {probe.driver}"
    if release and probe.driver != release:
        return "reload", f"the module that is loaded is {probe.driver}, the libraries are {release}"
    if not probe.smi.lstrip().startswith("<?xml") and probe.smi:
        return "reload", f"nvidia-smi fails: {_last_line(probe.smi)}"
    return "", ""


def _unloaded(probe: Probe) -> str:
    reason = probe.nvidia.log[-1] if probe.nvidia.log else ""
    return f"no module is loaded{f', the kernel says: {reason}' if reason else ''}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("exit ")]
    return lines[-1] if lines else "without a word"
