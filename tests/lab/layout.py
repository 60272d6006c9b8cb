"""Names and places of one lab: all of them derive from its state directory and its address prefix."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

DEFAULT_DIRECTORY = "/var/lib/bringup-lab"
DEFAULT_PREFIX = "10.44.0"
MOST_HOSTS = 8
REPOSITORY = Path(__file__).resolve().parents[2]


class LabError(Exception):
    """What stops the lab, in one sentence that also says what to do about it."""


@dataclass(frozen=True)
class Lab:
    """One lab. Several can be up at once when directory and prefix both differ."""

    directory: Path
    """State that `down` keeps: base images, keys, what the stand-ins have built."""
    prefix: str
    """The first three octets of its /24 network, such as 10.44.0."""
    images: Path
    """Where base images lie; labs may share it."""

    @classmethod
    def from_environment(cls) -> Lab:
        """The lab that BRINGUP_LAB_DIR, BRINGUP_LAB_NET and BRINGUP_LAB_IMAGES name."""
        directory = Path(os.environ.get("BRINGUP_LAB_DIR") or DEFAULT_DIRECTORY)
        if not directory.is_absolute() or directory == Path("/"):
            raise LabError(
                f"BRINGUP_LAB_DIR is {str(directory)!r}: "
                f"give it an absolute path, such as {DEFAULT_DIRECTORY}."
            )
        prefix = os.environ.get("BRINGUP_LAB_NET") or DEFAULT_PREFIX
        if not _is_prefix(prefix):
            raise LabError(
                f"BRINGUP_LAB_NET is {prefix!r}: give it the first three octets of a private network, "
                f"such as {DEFAULT_PREFIX}."
            )
        return cls(
            directory=directory,
            prefix=prefix,
            images=Path(os.environ.get("BRINGUP_LAB_IMAGES") or directory / "images"),
        )

    @property
    def network(self) -> str:
        return f"{self.prefix}.0/24"

    @property
    def gateway(self) -> str:
        return f"{self.prefix}.1"

    @property
    def tag(self) -> str:
        """The prefix in hexadecimal: a link's name has room for no more (15 characters)."""
        return "lab" + "".join(f"{int(octet):02x}" for octet in self.prefix.split("."))

    @property
    def bridge(self) -> str:
        return self.tag

    @property
    def packet_table(self) -> str:
        return f"bringup_{self.tag}"

    @property
    def cgroup(self) -> str:
        return f"bringup-{self.tag}"

    @property
    def services_cgroup(self) -> str:
        return f"{self.cgroup}/hubs"

    @property
    def hosts_directory(self) -> Path:
        return self.directory / "hosts"

    @property
    def login_key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def host_key(self) -> Path:
        return self.directory / "host_key"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    @property
    def api_key(self) -> Path:
        return self.directory / "api-key"

    @property
    def hubs(self) -> Path:
        return self.directory / "hubs"

    def possible_hosts(self) -> list[LabHost]:
        return [LabHost(self, number) for number in range(1, MOST_HOSTS + 1)]

    def hosts(self) -> list[LabHost]:
        """The hosts that exist, running or not."""
        return [host for host in self.possible_hosts() if host.directory.is_dir()]

    def host(self, name: str) -> LabHost:
        hosts = {host.name: host for host in self.hosts()}
        if name in hosts:
            return hosts[name]
        if not hosts:
            raise LabError(f"There is no host {name!r}: no lab is up; `python -m tests.lab up` makes one.")
        raise LabError(f"There is no host {name!r}: the lab has {', '.join(hosts)}.")


@dataclass(frozen=True)
class LabHost:
    """One machine of a lab."""

    lab: Lab
    number: int

    @property
    def name(self) -> str:
        return f"lab-{self.number}"

    @property
    def address(self) -> str:
        return f"{self.lab.prefix}.{10 + self.number}"

    @property
    def directory(self) -> Path:
        return self.lab.hosts_directory / self.name

    @property
    def machine(self) -> str:
        """The container's name, which also names its link: unique among all labs."""
        return f"{self.lab.tag}-{self.number}"

    @property
    def link(self) -> str:
        """The outer end of its network cable, as systemd-nspawn names it."""
        return f"vb-{self.machine}"

    @property
    def cgroup(self) -> str:
        return f"{self.lab.cgroup}/{self.name}"

    @property
    def supervisor_cgroup(self) -> str:
        return f"{self.cgroup}/supervisor"

    @property
    def machine_cgroup(self) -> str:
        return f"{self.cgroup}/machine"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"


def _is_prefix(text: str) -> bool:
    return bool(re.fullmatch(r"\d{1,3}(\.\d{1,3}){2}", text)) and all(
        int(octet) < 256 and str(int(octet)) == octet for octet in text.split(".")
    )
