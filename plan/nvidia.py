"""The driver part of a host's plan: what is installed, built, held and restarted, and why."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from plan import gpu_health, sources
from plan import nvidia_table as table
from plan.answer import DriverChoice, Wish
from plan.errors import PlanError
from plan.nvidia_mend import in_the_way, mending
from plan.nvidia_plan import DriverPlan, Repository
from plan.nvidia_refusals import refusals
from plan.nvidia_table import Names, System
from plan.nvidia_work import in_container, work
from plan.probe import Probe
from plan.sections import Settings

_FOLDERS = {"x86_64": "x86_64", "aarch64": "sbsa"}
PERSISTENCE, FABRIC = "nvidia-persistenced.service", "nvidia-fabricmanager.service"
MEMORY_EXCHANGE = "nvidia-imex.service"
# Before the fabric manager of NVLink 5 starts, it looks for InfiniBand's management devices.
# Source: NVIDIA, Fabric Manager user guide; spectrocloud/CanvOS#700 with its log of an HGX B200.
_SUBNET_MODULES = ("ib_umad",)


def borrows(probe: Probe) -> bool:
    """Whether this is a container that uses its host's driver: there is a driver, and none of its own."""
    if not in_container(probe) or not probe.driver:
        return False
    return bool(probe.nvidia.borrowed) or not (probe.nvidia.modules or probe.nvidia.kernels)


def manageable(settings: Settings, probe: Probe) -> bool:
    """Whether the driver of this host may be changed at all."""
    return settings.driver.managed and not borrows(probe)


def branches(settings: Settings, probe: Probe) -> tuple[int, ...] | None:
    """The branches that the settings leave to the decision; None: any.

    Raises:
        PlanError: the distribution has no driver of its own.
    """
    pinned = settings.driver.branch or _branch_of(settings.driver.version)
    if settings.driver.source == "nvidia":
        return (pinned,) if pinned else None
    system = table.system(probe.os)
    offered = system.distribution if system else ()
    if not offered:
        raise PlanError(
            [f"driver.source: {probe.os_name} has no NVIDIA driver among its packages. Set it to nvidia."]
        )
    if pinned and pinned not in offered:
        known = ", ".join(map(str, offered))
        setting = "version" if settings.driver.version else "branch"
        raise PlanError([f"driver.{setting}: {probe.os_name} has {known}, not {pinned}. Set one of these."])
    return (pinned,) if pinned else offered


def _branch_of(release: str | None) -> int | None:
    return int(release.partition(".")[0]) if release else None


def bound(wish: Wish, settings: Settings, probe: Probe) -> Wish:
    """The wish with what may become of this host's driver.

    Raises:
        PlanError: the driver's source has none for this system.
    """
    if not probe.gpus or settings.driver.state == "absent":
        return wish
    return replace(
        wish,
        manage_driver=manageable(settings, probe),
        driver_branches=branches(settings, probe),
        driver_modules=settings.driver.modules,
        driver_version=settings.driver.version,
    )


def present_release(probe: Probe) -> str | None:
    """The driver that the host has or will have after its next boot."""
    return probe.nvidia.release or probe.driver


def plan_driver(settings: Settings, choice: DriverChoice | None, probe: Probe) -> DriverPlan:
    """The driver that this host will have, with what is to be done for it.

    Args:
        settings: of the host.
        choice: the decision; None when nothing on the host needs a driver.
        probe: what the host is.

    Raises:
        PlanError: it cannot have that driver; one sentence per reason.
    """
    if settings.driver.state == "absent":
        there = probe.nvidia.added or _our_files(probe)
        system = table.system(probe.os)
        manager = system.manager if system else "apt"
        return DriverPlan("remove" if there and settings.driver.managed else "none", manager=manager)
    if choice is None:
        return DriverPlan("none")
    if not manageable(settings, probe) or _of_unknown_origin(choice, probe):
        return DriverPlan("keep", version=choice.version, branch=choice.branch, modules=choice.modules)
    system = table.system(probe.os)
    found = _names(settings, choice, probe, system)
    problems = [*refusals(settings, choice, probe, system, found), *in_the_way(settings.driver, probe)]
    if problems:
        raise PlanError(problems)
    assert system and found
    return _installed(settings, choice, probe, system, found)


def _our_files(probe: Probe) -> bool:
    return any(path.startswith("/etc/bringup/driver/") for path in probe.paths)


def _of_unknown_origin(choice: DriverChoice, probe: Probe) -> bool:
    """A driver that suffices and that no package manager knows is left as it is."""
    return choice.action == "keep" and not probe.nvidia.modules


def _names(settings: Settings, choice: DriverChoice, probe: Probe, system: System | None) -> Names | None:
    if system is None or choice.branch is None:
        return None
    flavour = choice.modules or probe.nvidia.installed_flavour or "open"
    return table.names(system.family, _source(settings, choice, system), choice.branch, flavour)


def _source(settings: Settings, choice: DriverChoice, system: System) -> Literal["nvidia", "distribution"]:
    """Where the driver comes from, by the settings; a branch that is kept may be only elsewhere."""
    wanted = settings.driver.source
    if choice.action != "keep" or choice.branch is None or "source" in settings.driver.model_fields_set:
        return wanted
    there = table.names(system.family, wanted, choice.branch, choice.modules or "open")
    return wanted if there else "distribution"


def _installed(
    settings: Settings, choice: DriverChoice, probe: Probe, system: System, found: Names
) -> DriverPlan:
    """The driver as this tool installs it, or as it maintains one that packages brought."""
    foreign = choice.action == "keep" and not set(found.driver) <= set(probe.nvidia.packages)
    packages = tuple(sorted(probe.nvidia.parts)) if foreign else found.driver
    if settings.driver.display and not foreign:
        packages = (*packages, *found.display)
    kernels = tuple(_kernels(probe))
    source = _source(settings, choice, system)
    plan = DriverPlan(
        action="install",
        version=probe.nvidia.release,
        pinned=settings.driver.version,
        branch=choice.branch,
        modules=choice.modules or probe.nvidia.installed_flavour,
        source=source,
        manager=system.manager,
        packages=packages,
        optional=found.optional if settings.driver.persistence else (),
        exact=tuple(_exact(choice, found)),
        beside=found.subnet if choice.subnet_manager else (),
        stream=found.stream if system.streams else None,
        repository=_repository(settings, probe, system) if source == "nvidia" else None,
        held=table.held_patterns(system.manager),
        kernels=kernels,
        headers=tuple(dict.fromkeys(_headers(probe, system, kernels))),
        units=tuple(_units(settings, choice, found)),
        modules_to_load=_SUBNET_MODULES if choice.subnet_manager else (),
        imex_nodes=tuple(settings.driver.imex_nodes) if choice.memory_exchange else (),
        persistence=settings.driver.persistence,
        reboot=settings.driver.reboot == "allowed",
    )
    plan = work(plan, choice, probe)
    plan = replace(plan, mending=mending(settings.driver, plan, probe), forget=tuple(_forget(plan, probe)))
    if plan.work.start == "reboot" and not plan.work.needed and _rebooted_in_vain(plan, probe):
        raise PlanError(
            [
                f"driver: the host was rebooted for {plan.version}, and still {plan.work.because}. "
                "Look at what its boot loader starts, then remove /etc/bringup/driver/rebooted and run again."
            ]
        )
    return plan


def _rebooted_in_vain(plan: DriverPlan, probe: Probe) -> bool:
    """Whether this tool rebooted the host for the same driver before; one reboot more would be a loop."""
    before, *release = probe.nvidia.rebooted or ("",)
    return release == [plan.version] and before != probe.boot_id


def _forget(plan: DriverPlan, probe: Probe) -> Iterator[str]:
    """Notes that would keep this tool from a reboot later, though the one that they are of has helped."""
    if plan.work.start:
        return
    if probe.nvidia.rebooted and probe.nvidia.rebooted[0] != probe.boot_id:
        yield "driver"
    yield from gpu_health.healed(probe)


def _repository(settings: Settings, probe: Probe, system: System) -> Repository:
    base = sources.address(settings.sources, "nvidia")
    assert base
    key, key_hash = table.rpm_key() if system.manager == "dnf" else (table.keyring_file(), "")
    return Repository(
        base=base,
        folder=f"{system.repository}/{_FOLDERS[probe.architecture]}",
        key=key,
        key_hash=key_hash or system.keyring_sha256,
    )


def _exact(choice: DriverChoice, found: Names) -> Iterator[str]:
    """What must be of the driver's own release, beside it."""
    if choice.fabric_manager:
        yield from found.fabric
    if choice.memory_exchange:
        yield from found.rack


def _units(settings: Settings, choice: DriverChoice, found: Names) -> Iterator[str]:
    if settings.driver.persistence:
        yield PERSISTENCE
    if choice.fabric_manager:
        yield FABRIC
    if choice.memory_exchange and found.rack and settings.driver.imex_nodes:
        yield MEMORY_EXCHANGE


def _kernels(probe: Probe) -> Iterator[str]:
    """What the module is built for: the kernel that runs, where that is possible, and the next one."""
    following = probe.nvidia.next_kernel or probe.kernel
    running = probe.nvidia.kernel(probe.kernel)
    if probe.kernel != following and running and running.headers in ("installed", "offered"):
        yield probe.kernel
    yield following


def _headers(probe: Probe, system: System, kernels: tuple[str, ...]) -> Iterator[str]:
    """Packages of headers: of these kernels, and those that follow the distribution's kernel packages."""
    if system.manager == "dnf":
        for kernel in kernels:
            yield _kernel_devel(kernel)
        return
    for kernel in kernels:
        yield f"linux-headers-{kernel}"
    for name in sorted(probe.nvidia.packages):
        flavour = name.removeprefix("linux-image-")
        if flavour != name and not flavour[0].isdigit() and flavour != "unsigned":
            yield f"linux-headers-{flavour}"


def _kernel_devel(kernel: str) -> str:
    """RHEL's name of the package to build against that kernel; variants are packages of their own."""
    version, _, variant = kernel.partition("+")
    if "uek" in kernel:
        return f"kernel-uek-devel-{kernel}"
    return f"kernel-{variant}-devel-{version}" if variant else f"kernel-devel-{kernel}"
