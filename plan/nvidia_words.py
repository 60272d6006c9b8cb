"""The driver's plan as the programs on the host read it."""

import shlex

from plan import apt, dnf
from plan.host import HostPlan
from plan.nvidia_plan import DriverPlan


def plan_text(plan: HostPlan, driver: DriverPlan) -> str:
    """The driver's plan as the program on the host reads it: shell assignments, every value quoted."""
    repository = driver.repository
    options = (*apt.options(apt.PARTS),) if plan.apt_sources else ()
    values: dict[str, str] = {
        "manager": driver.manager,
        "source": driver.source,
        "branch": str(driver.branch),
        "present": driver.version or "",
        "pinned": driver.pinned or "",
        "modules": driver.modules or "open",
        "packages": " ".join(driver.packages),
        "optional": " ".join(driver.optional),
        "exact": " ".join(driver.exact),
        "beside": " ".join(driver.exactly(driver.beside)),
        "versions": " ".join(f"{name}={version}" for name, version in driver.versions),
        "stream": driver.stream or "",
        "repository": repository.url if repository else "",
        "key": repository.key if repository else "",
        "key_hash": repository.key_hash if repository else "",
        "key_short": repository.key_hash[-8:] if repository else "",
        "apt_options": " ".join(options),
        "dnf_options": " ".join(dnf.options()) if plan.bundle and plan.bundle.repository else "",
        "apt_lists": apt.PARTS if plan.apt_sources else "/etc/apt/sources.list.d",
        "headers": " ".join(driver.headers),
        "kernels": " ".join(driver.kernels),
        "next_kernel": driver.kernels[-1],
        "held": " ".join(f"'{pattern}'" for pattern in driver.held),
        "units": " ".join(driver.units),
        "to_load": " ".join(driver.modules_to_load),
        "reboot": "allowed" if driver.reboot else "never",
        "otherwise": _otherwise(driver),
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join(["# Written by bringup; edits are overwritten.", *lines, ""])


def _otherwise(driver: DriverPlan) -> str:
    """What the operator can set when the sources cannot give this driver."""
    if driver.versions:
        return "Name a mirror that keeps it in sources.nvidia, or run `python -m plan lock --upgrade driver`."
    other = "proprietary" if driver.modules == "open" else "open"
    if driver.pinned:
        return "Set driver.version to one that they have, or leave it out."
    if driver.source == "distribution":
        return f"Set driver.source to nvidia, or driver.modules to {other}."
    return "Set driver.branch to one that the repository has, or driver.source to distribution."
