"""Which NVIDIA driver: keep the one that is there, or the branch and the kernel modules to install."""

from collections.abc import Iterable

from plan import compat
from plan.answer import DriverChoice, Failure, Machine, Wish
from plan.compat import Branch, version
from plan.gpus import Capability, Gpu, newest, oldest

MODULES_SOURCE = "NVIDIA driver installation guide, kernel modules"
LISTS_SOURCE = "README of NVIDIA/open-gpu-kernel-modules, per release"
_FIRST_OPEN = Capability(7, 5)
_FIRST_OPEN_ONLY = Capability(10, 0)
_FIRST_SUBNET_MANAGER = Capability(10, 0)
_FIRST_RACK = Capability(10, 0)


def modules_for(gpus: Iterable[Gpu]) -> str | None:
    """The flavour of the kernel modules that serves every GPU; None when no single one does."""
    cards = tuple(gpus)
    needs_open = any(gpu.capability >= _FIRST_OPEN_ONLY or gpu.grace for gpu in cards)
    needs_proprietary = any(gpu.capability < _FIRST_OPEN for gpu in cards)
    if needs_open and needs_proprietary:
        return None
    return "proprietary" if needs_proprietary else "open"


def serves(branch: Branch, gpu: Gpu) -> bool:
    """Whether a branch drives a GPU: it serves its generation and lists the card."""
    if not branch.oldest_capability <= gpu.capability <= branch.newest_capability:
        return False
    return gpu.first_driver is None or version(gpu.first_driver).major <= branch.branch


def installable_branch(gpus: tuple[Gpu, ...], among: tuple[int, ...] | None = None) -> Branch | None:
    """The newest production or long-term branch that serves every GPU; None when there is none.

    `among`: the branches in question, chosen by the operator or by who packages them, in support or not.
    """
    rows = [row for row in compat.branches() if (row.maintained if among is None else row.branch in among)]
    served = [row for row in rows if all(serves(row, gpu) for gpu in gpus)]
    return served[-1] if served else None


def fabric_manager_needed(gpus: tuple[Gpu, ...]) -> bool:
    """NVSwitch boards carry four modules or more; fewer of them in one host sit on bridges or cables."""
    return sum(gpu.nvswitch for gpu in gpus) >= 4


def subnet_manager_needed(gpus: tuple[Gpu, ...]) -> bool:
    """NVSwitch boards of Blackwell need the NVLink subnet manager too."""
    switched = [gpu for gpu in gpus if gpu.nvswitch]
    return fabric_manager_needed(gpus) and any(gpu.capability >= _FIRST_SUBNET_MANAGER for gpu in switched)


def memory_exchange_needed(gpus: tuple[Gpu, ...]) -> bool:
    """GPUs of an NVLink rack reach those of other hosts by NVIDIA's memory exchange service (IMEX).

    Source: NVIDIA, MNNVL user guide: GB200 and GB300 NVL; the racks' switches have hosts of their own.
    """
    return any(gpu.grace and gpu.capability >= _FIRST_RACK for gpu in gpus)


def planned(
    machine: Machine,
    among: tuple[int, ...] | None = None,
    flavour: str | None = None,
    release: str | None = None,
) -> DriverChoice | tuple[Failure, ...]:
    """The driver to install on this host, or why no driver serves it.

    Args:
        machine: what the host is.
        among: branches that it may be of; None: any that is in support.
        flavour: what the kernel modules must be; None: what the cards need.
        release: the very release, of one of these branches; None: the newest.
    """
    branch = installable_branch(machine.gpus, among)
    modules = modules_for(machine.gpus)
    if modules is None or (branch is None and among is None):
        return (_unserved(machine.gpus, modules),)
    if branch is None:
        return (_unserved_by(machine.gpus, among or ()),)
    if wrong := _wrong_flavour(machine.gpus, flavour):
        return (wrong,)
    modules = flavour or modules
    system = compat.system(machine.os) if machine.os else None
    return DriverChoice(
        action="install",
        version=release,
        branch=branch.branch,
        modules=modules,
        repository=(system.repository or None) if system else None,
        fabric_manager=fabric_manager_needed(machine.gpus),
        subnet_manager=subnet_manager_needed(machine.gpus),
        memory_exchange=memory_exchange_needed(machine.gpus),
    )


def kept(machine: Machine, driver: str) -> DriverChoice:
    """The driver that is there."""
    return DriverChoice(
        action="keep",
        version=driver,
        branch=version(driver).major,
        modules=machine.modules,
        fabric_manager=fabric_manager_needed(machine.gpus),
        subnet_manager=subnet_manager_needed(machine.gpus),
        memory_exchange=memory_exchange_needed(machine.gpus),
    )


def _unserved(gpus: tuple[Gpu, ...], modules: str | None) -> Failure:
    old, new = oldest(gpus), newest(gpus)
    if modules is None:
        fact = (
            f"{old.name} ({old.architecture}) needs the proprietary kernel modules and {new.name} "
            f"({new.architecture}) needs the open ones"
        )
    elif old.capability != new.capability:
        fact = f"no maintained driver branch serves both {old.name} and {new.name}"
    else:
        fact = f"no maintained driver branch serves {old.name} ({old.architecture})"
    return Failure("one driver serves every GPU", fact, MODULES_SOURCE)


def _unserved_by(gpus: tuple[Gpu, ...], among: tuple[int, ...]) -> Failure:
    names = ", ".join(gpu.name for gpu in dict.fromkeys(gpus))
    branches = " or ".join(str(branch) for branch in among) or "none"
    fact = f"branch {branches} does not serve {names}, or is not in the tables"
    return Failure("the driver's branch serves every GPU", fact, MODULES_SOURCE)


def _wrong_flavour(gpus: tuple[Gpu, ...], flavour: str | None) -> Failure | None:
    """Why modules of this flavour cannot drive these cards; None when they can, or none is asked for."""
    for gpu in gpus:
        open_only = gpu.capability >= _FIRST_OPEN_ONLY or gpu.grace
        if (flavour == "proprietary" and open_only) or (flavour == "open" and gpu.capability < _FIRST_OPEN):
            other = "open" if open_only else "proprietary"
            fact = f"{gpu.name} ({gpu.architecture}) needs the {other} kernel modules"
            return Failure(f"{flavour} kernel modules", fact, MODULES_SOURCE)
    return None


def pinned_away(machine: Machine, driver: str, wish: Wish) -> Failure | None:
    """Why the driver that is there is not the one that the operator asks for; None when it is."""
    branch = version(driver).major
    if wish.driver_branches is not None and branch not in wish.driver_branches:
        wanted = " or ".join(str(number) for number in wish.driver_branches) or "none"
        return Failure(f"driver branch {wanted}", f"the host has {driver}", "the operator's pin")
    if wish.driver_version not in (None, driver):
        return Failure(f"driver {wish.driver_version}", f"the host has {driver}", "the operator's pin")
    if wish.driver_modules and machine.modules not in (None, wish.driver_modules):
        fact = f"the host has the {machine.modules} ones"
        return Failure(f"{wish.driver_modules} kernel modules", fact, "the operator's pin")
    return None


def failures_of_kept(machine: Machine, driver: str) -> tuple[Failure, ...]:
    """Why the driver that is there cannot drive these GPUs, whatever runs on it."""
    found: list[Failure] = []
    try:
        branch = compat.branch_of(driver)
    except ValueError as error:
        return (Failure("driver known", str(error), "plan/compat-cuda.toml"),)
    for gpu in dict.fromkeys(machine.gpus):
        found.extend(_generation_failures(gpu, driver, branch))
        if not machine.driver_works and not _lists_in_branch(gpu, branch):
            fact = f"{gpu.name} is first listed by driver {gpu.first_driver}, the host has {driver}"
            found.append(Failure("driver knows the GPU", fact, LISTS_SOURCE))
    needed = modules_for(machine.gpus)
    if machine.modules == "proprietary" and needed == "open" and _open_only(machine.gpus):
        names = ", ".join(gpu.name for gpu in dict.fromkeys(machine.gpus))
        fact = f"the host runs the proprietary kernel modules, {names} needs the open ones"
        found.append(Failure("kernel modules serve the GPU", fact, MODULES_SOURCE))
    return tuple(found)


def _open_only(gpus: tuple[Gpu, ...]) -> bool:
    return any(gpu.capability >= _FIRST_OPEN_ONLY or gpu.grace for gpu in gpus)


def _generation_failures(gpu: Gpu, driver: str, branch: Branch) -> Iterable[Failure]:
    if gpu.capability < branch.oldest_capability:
        fact = f"branch {branch.branch} no longer drives {gpu.architecture}; {gpu.name} is of it"
        yield Failure("driver still serves the GPU", fact, branch.source)
    if gpu.known and gpu.capability > branch.newest_capability and gpu.first_driver is None:
        fact = f"driver {driver} is older than {gpu.architecture}; {gpu.name} is of it"
        yield Failure("driver knows the GPU", fact, branch.source)


def _lists_in_branch(gpu: Gpu, branch: Branch) -> bool:
    return gpu.first_driver is None or version(gpu.first_driver).major <= branch.branch


def warnings_of_kept(machine: Machine, driver: str) -> tuple[str, ...]:
    """What the operator should know of the driver that is there."""
    found = []
    branch = compat.branch_of(driver)
    known = {row.branch for row in compat.branches()}
    if version(driver).major not in known:
        found.append(f"Driver {driver} is of no branch in the tables; CUDA {branch.cuda} is assumed of it.")
    elif branch.status == "ended":
        ended = f" ended in {branch.ends}" if branch.ends else " has ended"
        found.append(f"Support of driver branch {branch.branch}{ended}.")
    for gpu in dict.fromkeys(machine.gpus):
        if gpu.first_driver and version(driver) < version(gpu.first_driver):
            found.append(
                f"Driver {driver} does not list {gpu.name}; {gpu.first_driver} is the first that does."
            )
    return tuple(found)
