"""What a lock needs of a driver: the one release, the exact packages, and settings that hold to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from plan.nvidia_plan import DriverPlan
from plan.nvidia_work import belongs
from plan.probe import Probe
from plan.sections import Settings


@dataclass(frozen=True)
class DriverPins:
    """A driver to the last package.

    Attributes:
        release: of the driver and all that must be of the same, such as 580.95.05.
        modules: "open" or "proprietary".
        source: "nvidia" or "distribution".
        packages: name -> the version that dpkg or rpm gives; empty where it is not installed yet.
    """

    release: str
    modules: str
    source: str
    packages: Mapping[str, str] = field(default_factory=dict)


def pins(plan: DriverPlan, probe: Probe) -> DriverPins | None:
    """The driver that this host has or is to get; None where no release is known yet, or none is managed.

    A branch alone is no release: before the installation it is what the package source has on that day. With
    `driver.version` it is known beforehand.
    """
    release = plan.pinned or (None if plan.work.install else plan.version)
    if not plan.maintained or release is None:
        return None
    there = {name: package.version for name, package in probe.nvidia.packages.items() if belongs(name)}
    installed = {} if plan.work.install else dict(sorted(there.items()))
    return DriverPins(release, plan.modules or "open", plan.source, installed)


def held(settings: Settings, found: DriverPins) -> Settings:
    """The settings with this release, wherever the operator chose neither a release nor a branch."""
    driver = settings.driver
    chosen = driver.version or driver.branch or driver.state == "absent" or not driver.managed
    if chosen or driver.source != found.source:
        return settings
    return settings.model_copy(update={"driver": driver.model_copy(update={"version": found.release})})
