"""Distribution packages, by the host's own package manager."""

import shlex
from collections.abc import Collection, Iterable, Mapping

from ops.task import Task
from plan.apt import LISTS

APT = "apt-get --quiet --assume-yes --no-install-recommends -o DPkg::Lock::Timeout=600"
DNF = "dnf --quiet --assumeyes --setopt=install_weak_deps=False"


def missing(names: Iterable[str], seen: Mapping[str, str]) -> list[str]:
    """The packages that are not installed."""
    return [name for name in names if name not in seen]


def install_task(
    name: str, packages: Collection[str], manager: str, apt_options: Collection[str] = ()
) -> Task:
    """A task that installs packages, after mending what an earlier, cut installation left.

    Args:
        name: of the task.
        packages: package names of the host's distribution.
        manager: "apt" or "dnf".
        apt_options: options that point apt at the mirror of the settings.
    """
    names = shlex.join(packages)
    if manager == "dnf":
        script = f"{DNF} install {names}"
    else:
        # an index may be missing, or older than the packages that the mirror still has
        apt = f"{APT} {shlex.join(apt_options)}".strip()
        script = (
            f"dpkg --configure -a\nmkdir -p {LISTS}\n"
            f"{apt} install {names} || {{ {apt} update && {apt} install {names}; }}"
        )
    return Task(name, f"installing {', '.join(packages)}", script, {"DEBIAN_FRONTEND": "noninteractive"})
