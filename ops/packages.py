"""Distribution packages, by the host's own package manager."""

import shlex
from collections.abc import Collection

from ops.files import File
from ops.render import render
from ops.task import Task
from plan import apt, dnf
from plan.host import HostPlan
from plan.probe import Probe

APT = "apt-get --quiet --assume-yes --no-install-recommends -o DPkg::Lock::Timeout=600"
DNF = "dnf --quiet --assumeyes --setopt=install_weak_deps=False"


def options(plan: HostPlan, parts: str = "/dev/null") -> tuple[str, ...]:
    """Options of apt-get or dnf that make it read our package sources alone; none where there are none.

    `parts`: a directory of further lists of ours, for apt.
    """
    if plan.package_manager == "dnf":
        return dnf.options() if plan.bundle and plan.bundle.repository else ()
    return apt.options(parts) if plan.apt_sources else ()


def sources(plan: HostPlan) -> list[File]:
    """The files with our package sources."""
    if plan.bundle and plan.bundle.repository:
        return [File(dnf.REPOSITORY_FILE, plan.bundle.repository)]
    driver = plan.bundle.driver_sources if plan.bundle and plan.driver.maintained else None
    texts = {apt.SOURCE_LIST: plan.apt_sources, apt.DRIVER_LIST: driver}
    return [File(path, text) for path, text in texts.items() if text]


def left_sources(plan: HostPlan, probe: Probe) -> list[str]:
    """Package sources of ours on the host that the plan has not, with what apt keeps of them."""
    wanted = {file.path for file in sources(plan)}
    ours = (apt.SOURCE_LIST, apt.DRIVER_LIST, dnf.REPOSITORY_FILE)
    there = [path for path in ours if path in probe.paths and path not in wanted]
    return [*there, apt.LISTS] if apt.SOURCE_LIST in there else there


def install_task(name: str, packages: Collection[str], manager: str, options: Collection[str] = ()) -> Task:
    """A task that installs packages, after mending what an earlier, cut installation left.

    Args:
        name: of the task.
        packages: package names of the host's distribution.
        manager: "apt" or "dnf".
        options: what points apt or dnf at the mirror or bundle of the settings (`options`).
    """
    names = shlex.join(packages)
    if manager == "dnf":
        script = f"{' '.join([DNF, *map(shlex.quote, options)])} install {names}"
    else:
        # an index may be missing, or older than the packages that the mirror still has
        apt_get = f"{APT} {shlex.join(options)}".strip()
        script = (
            f"{render('shell/patient.sh')}patient dpkg --configure -a\nmkdir -p {apt.LISTS}\n"
            f"{apt_get} install {names} || {{ patient {apt_get} update && {apt_get} install {names}; }}"
        )
    return Task(name, f"installing {', '.join(packages)}", script, {"DEBIAN_FRONTEND": "noninteractive"})
