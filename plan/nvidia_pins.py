"""The driver in a lock: its one release, its packages, settings and plans that are held to them."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from plan import apt_closure, dnf_closure
from plan.errors import PlanError
from plan.lock import Driver, Lock, Packages
from plan.nvidia_plan import DriverPlan
from plan.nvidia_work import belongs
from plan.probe import Probe
from plan.sections import Settings


def pins(plan: DriverPlan, probe: Probe, offers: str = "") -> Driver | None:
    """The driver that this host has or is to get; None where it gets none.

    A branch alone is no release: before the installation it is what the package source has on that day.

    Args:
        offers: what `templates/nvidia/offers.sh` said on the host; empty where it was not asked.
    """
    if plan.action in ("none", "remove"):
        return None
    if not plan.maintained:
        return Driver(made_by="the host, whose driver is kept", release=plan.version, source="host")
    found = _offered(offers) if plan.work.install else _installed(probe)
    if found:
        release = plan.pinned or (_release(offers) if plan.work.install else plan.version)
        made_by = "its package source, as apt resolves it" if plan.work.install else "what is installed"
        return Driver(
            made_by=made_by, release=release, modules=plan.modules, source=plan.source, packages=found
        )
    # dnf's answer has the release, and the names only in those of files
    release = plan.pinned or _release(offers)
    made_by = "its package source" if release else "the plan"
    made_by += "; its packages are known once they are installed"
    return Driver(made_by=made_by, release=release, modules=plan.modules, source=plan.source)


def _installed(probe: Probe) -> dict[str, str]:
    return {name: package.version for name, package in probe.nvidia.packages.items() if belongs(name)}


def _offered(text: str) -> dict[str, str]:
    found = re.findall(r"(?m)^package (\S+) (\S+)$", text)
    return {name: version for name, version in found if belongs(name)}


def closure(offers: str) -> Packages | None:
    """The driver's packages with all that they need on a bare system; None where nobody said them."""
    if not _release(offers):
        return None
    made_by = "what its package source has of the driver, on a bare system"
    for parse in (apt_closure.parse, dnf_closure.parse):
        with suppress(PlanError):
            return parse(offers, made_by)
    return None


def add_closure(known: dict[str, Packages], name: str, old: Lock | None, offers: str) -> None:
    """Adds a driver's files by its name: those of the old lock, else what the host says."""
    found = (old.packages.get(name) if old else None) or closure(offers)
    if found:
        there = known[name].files if name in known else {}
        known[name] = found.model_copy(update={"files": {**found.files, **there}})


def _release(text: str) -> str | None:
    found = re.search(r"(?m)^release (\S+)$", text)
    return found[1] if found else None


def name(driver: Driver, plan: DriverPlan, probe: Probe) -> str:
    """What it is called in the lock."""
    if driver.source == "host":
        return f"{driver.release}, kept"
    what = f"{driver.release or f'branch {plan.branch}'} {driver.modules}"
    return f"{what} of {driver.source} for {probe.os} {probe.architecture}"


def joined(one: Driver | None, other: Driver) -> Driver:
    """What several hosts say of the same driver: all packages, each at the version that was heard first."""
    if one is None:
        return other
    first = one if one.packages else other
    return first.model_copy(update={"packages": {**other.packages, **one.packages}})


def held(settings: Settings, found: Driver) -> Settings:
    """The settings with this release, wherever the operator chose no release, and no other branch."""
    driver = settings.driver
    chosen = driver.version or driver.state == "absent" or not driver.managed
    if chosen or driver.source != found.source or found.release is None:
        return settings
    if driver.branch and driver.branch != int(found.release.partition(".")[0]):
        return settings
    return settings.model_copy(update={"driver": driver.model_copy(update={"version": found.release})})


def drift(plan: DriverPlan, found: Driver) -> Iterator[str]:
    """Where the planned driver is another than the lock's, in words that follow 'the lock has'."""
    if plan.action in ("none", "remove"):
        yield f"the driver {found.release or ''} for it, and its plan has none".replace("  ", " ")
        return
    planned = plan.pinned or plan.version or f"branch {plan.branch}"
    if found.release and planned != found.release:
        yield f"driver {found.release} for it, and its plan has {planned}"
    if found.modules and plan.modules and plan.modules != found.modules:
        yield f"{found.modules} modules of the driver for it, and its plan has {plan.modules} ones"
    if (found.source == "host") == plan.maintained:
        one, other = ("kept as it is", "maintained") if plan.maintained else ("maintained", "kept as it is")
        yield f"the driver of this host as {one}, and its plan has it {other}"
    elif plan.maintained and plan.source != found.source:
        yield f"the driver of {found.source} for it, and its plan has that of {plan.source}"


def locked(plan: DriverPlan, found: Driver, probe: Probe) -> DriverPlan:
    """The plan with the lock's packages; what of them is installed at another version is to be installed."""
    if not plan.maintained or not found.packages:
        return plan
    there = probe.nvidia.packages
    other = [
        package
        for package, version in sorted(found.packages.items())
        if package in there and there[package].version != version
    ]
    install = tuple(dict.fromkeys([*plan.work.install, *other]))
    work = replace(plan.work, install=install, hold=() if install else plan.work.hold)
    return replace(plan, versions=tuple(sorted(found.packages.items())), work=work)
