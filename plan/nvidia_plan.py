"""The driver part of a host's plan, as data: frozen, printable, JSON."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

# Where what this tool knows of the driver lies on a host.
DIRECTORY = "/etc/bringup/driver"
# Lies in /run, so that the boot that it waits for removes it.
WAITING = "/run/bringup/reboot-pending"
# The program that carries the plan out.
PROGRAM = "/opt/bringup/bin/driver"

Action = Literal["none", "keep", "install", "remove"]
Start = Literal["", "load", "reload", "reboot"]


@dataclass(frozen=True)
class Repository:
    """NVIDIA's package repository for this system; the key's hash is a file's sha256 or a fingerprint."""

    base: str
    folder: str
    key: str
    key_hash: str

    @property
    def url(self) -> str:
        """Where its packages are."""
        return f"{self.base}/{self.folder}"


@dataclass(frozen=True)
class DriverWork:
    """What differs on the host from the plan.

    Attributes:
        install: packages that are missing, of another release, or half installed.
        build: installed kernels that lack the module of that release.
        hold: packages that nothing keeps as they are.
        start: what puts the driver to work: load its module, load it anew (the services stop), reboot.
        because: why, in words for the operator.
    """

    install: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    start: Start = ""
    because: str = ""

    @property
    def needed(self) -> bool:
        """Whether packages or modules are to be changed."""
        return bool(self.install or self.build or self.hold)


@dataclass(frozen=True)
class Mending:
    """What is done to which GPUs for their health; all empty where nothing is.

    Attributes:
        whole: GPUs that are to be made whole (MIG off), by the driver's name.
        reset: GPUs to be reset.
        reboot: GPUs for whose sake the host is rebooted.
        because: what ails them, a clause.
    """

    whole: tuple[str, ...] = ()
    reset: tuple[str, ...] = ()
    reboot: tuple[str, ...] = ()
    because: str = ""

    @property
    def needed(self) -> bool:
        """Whether anything is done on the host short of a reboot."""
        return bool(self.whole or self.reset)


@dataclass(frozen=True)
class DriverPlan:
    """The driver that a host will have.

    Attributes:
        action: "none" (no GPU), "keep" (what is there), "install" (also what an earlier run installed, which
            is maintained), "remove".
        version: release that is there, such as 580.95.05; None before an installation.
        pinned: the very release that the settings ask for; None: the newest of the branch.
        packages: what shall be installed, all of one release; `optional` where the source has them; `exact`
            too of that release; `beside` with versions of their own.
        versions: package -> the very version that the lock has, in its package manager's words.
        held: patterns of the packages that no upgrade but this tool's may change.
        kernels: what the module is built for; the last is what the boot loader starts next.
        headers: packages to build against.
        units: services beside the module.
        modules_to_load: further kernel modules that these services need.
        imex_nodes: addresses of the hosts of this NVLink domain.
        reboot: whether the host may be rebooted for it.
        forget: notes of reboots that have helped, which no run came to look at: "driver", names of GPUs.
    """

    action: Action
    version: str | None = None
    pinned: str | None = None
    branch: int | None = None
    modules: str | None = None
    source: str = "nvidia"
    manager: str = "apt"
    packages: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    stream: str | None = None
    repository: Repository | None = None
    held: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    modules_to_load: tuple[str, ...] = ()
    imex_nodes: tuple[str, ...] = ()
    persistence: bool = True
    reboot: bool = False
    work: DriverWork = field(default_factory=DriverWork)
    mending: Mending = field(default_factory=Mending)
    forget: tuple[str, ...] = ()

    @property
    def release(self) -> str | None:
        """The driver's version, or the first of its branch before it is installed; None without a driver."""
        return self.pinned or self.version or (f"{self.branch}.0" if self.branch else None)

    def exactly(self, names: Iterable[str]) -> list[str]:
        """The packages as their manager is asked for them: at the lock's version where it has one."""
        sign, versions = "-" if self.manager == "dnf" else "=", dict(self.versions)
        return [f"{name}{sign}{versions[name]}" if name in versions else name for name in names]

    @property
    def summary(self) -> str:
        """The driver in a few words."""
        if self.action == "none":
            return "none needed"
        if self.action == "remove":
            return "none (state: absent)"
        if self.action == "keep" or not self.work.install:
            return f"{self.version} (kept)"
        return f"{self.pinned or f'branch {self.branch}'}, {self.modules} modules"

    @property
    def maintained(self) -> bool:
        """Whether this tool keeps the driver as planned; else it only looks."""
        return self.action == "install"

    @property
    def waits(self) -> bool:
        """Whether nothing but a reboot is missing, and that is not allowed."""
        return self.work.start == "reboot" and not self.reboot and not self.work.needed

    @property
    def waiting_sentence(self) -> str:
        """What the operator reads of a host that waits for a reboot."""
        return (
            f"driver: {self.version or f'branch {self.branch}'} is installed and starts with the next boot "
            f"({self.work.because}). Reboot the host, or set driver.reboot to allowed, and run again."
        )
