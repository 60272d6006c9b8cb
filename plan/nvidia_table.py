"""The table of driver packages (`nvidia.toml`): what a driver is called on which system, by source."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plan import tables

# Beside the driver's own names, what the probe looks for among the packages.
_KERNEL_NAMES = {"apt": ("linux-image-*", "linux-headers-*", "dkms"), "dnf": ("kernel*", "dkms")}


@dataclass(frozen=True)
class System:
    """An operating system: whose package names it has, NVIDIA's folder for it, its own driver branches."""

    os: str
    family: str
    repository: str
    source: str
    keyring_sha256: str = ""
    distribution: tuple[int, ...] = ()
    streams: bool = False
    verified: bool = True

    @property
    def manager(self) -> str:
        """ "apt" or "dnf"."""
        return "dnf" if self.family == "rhel" else "apt"


@dataclass(frozen=True)
class Names:
    """The packages of one branch from one source: of the modules' flavour asked for, and what they bring.

    `fabric` and `rack` have the driver's own version, `subnet` versions of its own; `stream` is dnf's module.
    """

    driver: tuple[str, ...]
    optional: tuple[str, ...]
    display: tuple[str, ...]
    fabric: tuple[str, ...]
    rack: tuple[str, ...]
    subnet: tuple[str, ...]
    stream: str | None


def system(os: str) -> System | None:
    """The row of an operating system, named as the probe does; None when it is not in the table."""
    for row in _table()["system"]:
        if row["os"] == os:
            return System(**{**row, "distribution": tuple(row.get("distribution", ()))})
    return None


def systems() -> tuple[System, ...]:
    """Every system of the table."""
    return tuple(found for row in _table()["system"] if (found := system(row["os"])))


def names(family: str, source: str, branch: int, modules: str) -> Names | None:
    """What the driver is called there; None when that source has no such driver."""
    for row in _table()["packages"]:
        if (row["family"], row["from"]) == (family, source) and _in_range(row, branch):
            part = functools.partial(_filled, row, branch)
            return Names(
                driver=part(modules),
                optional=part("optional"),
                display=part("display"),
                fabric=part("fabric"),
                rack=part("rack"),
                subnet=part("subnet"),
                stream=row.get(f"stream_{modules}", "").format(branch=branch) or None,
            )
    return None


def _in_range(row: Mapping[str, Any], branch: int) -> bool:
    return int(row.get("since", 0)) <= branch <= int(row.get("until", 9999))


def _filled(row: Mapping[str, Any], branch: int, key: str) -> tuple[str, ...]:
    return tuple(name.format(branch=branch) for name in row.get(key, ()))


def names_to_look_for(manager: str) -> tuple[str, ...]:
    """Patterns of the packages that belong to a driver, and to what it is built against."""
    return (*_table()["names"][manager], *_KERNEL_NAMES[manager])


def held_patterns(manager: str) -> tuple[str, ...]:
    """Patterns of the packages that are held together."""
    return tuple(_table()["names"][manager])


def pinned_patterns() -> tuple[str, ...]:
    """Patterns of the packages that apt takes from one branch only, in apt's preferences."""
    return tuple(_table()["names"]["apt"])


def keyring_file() -> str:
    """The package that holds the key of NVIDIA's apt repositories."""
    name: str = _table()["keyring"]["file"]
    return name


def rpm_key() -> tuple[str, str]:
    """The key of NVIDIA's RPM repositories: its file name there, its fingerprint."""
    return _table()["rpm_key"]["file"], _table()["rpm_key"]["fingerprint"]


def room_gib() -> tuple[float, float]:
    """What an installation takes below /usr and in /boot."""
    return float(_table()["room"]["usr_gib"]), float(_table()["room"]["boot_gib"])


def _table() -> dict[str, Any]:
    return tables.read("nvidia")
