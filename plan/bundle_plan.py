"""A host's part in a bundle, as data: what it takes from where, and what it serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# Where a bundle that is not on the host is brought to, as far as the host needs it, until the deploy is done.
STAGED = "/var/cache/bringup/bundle"
SERVER_UNIT = "bringup-bundle-server.service"
SERVER_UNIT_FILE = f"/etc/systemd/system/{SERVER_UNIT}"
SERVER_DIRECTORY = "/etc/bringup/bundle-server"
Group = Literal["environment", "ollama", "ollama-models", "models", "packages", "driver"]


@dataclass(frozen=True)
class BundlePlan:
    """What a host takes from a bundle.

    Attributes:
        place: the directory on the host, `operator:DIRECTORY`, or a URL.
        wanted: what each part of the deploy needs, a line a file: its name, then the hashes that it may
            have, or `=PATH` where nothing but its path in the bundle is known.
        repository: the text of dnf's repository file; None where the host has apt.
        driver_sources: apt's list of the driver's packages; None where the bundle has none for this host.
    """

    place: str
    wanted: Mapping[Group, tuple[str, ...]]
    repository: str | None = None
    driver_sources: str | None = None

    @property
    def kind(self) -> Literal["host", "operator", "url"]:
        """On which side it lies."""
        if self.place.startswith("operator:"):
            return "operator"
        return "url" if "://" in self.place else "host"

    @property
    def directory(self) -> str:
        """Where the host has it while it is deployed."""
        return directory_of(self.place)

    @property
    def url(self) -> str:
        """Where the host's programs read it: itself, or what the host has of it."""
        return self.place if self.kind == "url" else f"file://{self.directory}"


@dataclass(frozen=True)
class BundleServer:
    """The server of a bundle: on one address of the host, for these addresses alone."""

    directory: str
    address: str
    port: int
    clients: tuple[str, ...]


def directory_of(place: str) -> str:
    """Where a host has the bundle of a place while it is deployed."""
    return place if place.startswith("/") else STAGED
