"""A host's disk: a folder of its own over the shared base image."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

from tests.lab import image, outer
from tests.lab.layout import Lab, LabHost
from tests.lab.network import way_out_mtu


def make(host: LabHost, base: Path) -> None:
    """Make the disk of a host that does not exist yet; the name comes last, so there is never half of one."""
    new = host.directory.with_name(f"{host.name}.new")
    discard(new)
    for name in ("upper", "work", "root"):
        (new / name).mkdir(parents=True)
    (new / "upper").chmod(0o755)
    (new / "base").symlink_to(base)
    user = (base / "home" / image.UNPRIVILEGED_USER).stat()
    login = host.lab.login_key.with_suffix(".pub").read_text()
    disk = _Disk(new / "upper", base)
    disk.write("root/.ssh/authorized_keys", login, mode=0o600)
    disk.write(f"home/{image.UNPRIVILEGED_USER}/.ssh/authorized_keys", login, mode=0o600, owner=user.st_uid)
    disk.write("etc/ssh/ssh_host_ed25519_key", host.lab.host_key.read_text(), mode=0o600)
    disk.write("etc/ssh/ssh_host_ed25519_key.pub", host.lab.host_key.with_suffix(".pub").read_text())
    disk.write("etc/machine-id", f"{uuid.uuid4().hex}\n", mode=0o444)
    disk.write("etc/hostname", f"{host.name}\n")
    disk.write("etc/hosts", _host_names(host))
    disk.write("etc/resolv.conf", outer.name_servers())
    disk.write("etc/pip.conf", outer.pip_configuration())
    disk.write("etc/environment", outer.environment(host.lab))
    disk.write("etc/systemd/network/10-host0.network", _network(host))
    new.rename(host.directory)


def discard(directory: Path) -> None:
    """Remove a folder; its name goes first, so that a cut removal never leaves half a disk to be booted."""
    gone = directory.with_name(f"{directory.name}.gone")
    for _ in range(2):
        if gone.exists():
            # a served host has 150,000 files, and rm takes half the time that Python does
            subprocess.run(["rm", "-rf", "--one-file-system", "--", gone], check=True)
        if directory.exists():
            directory.rename(gone)


def discard_all(lab: Lab) -> None:
    """Remove every host's disk, and what a cut command left of one."""
    discard(lab.hosts_directory)


class _Disk:
    """Writes into a host's own layer. A folder there covers the image's, so it takes over mode and owner."""

    def __init__(self, layer: Path, base: Path) -> None:
        self.layer = layer
        self.base = base

    def write(self, name: str, text: str, mode: int = 0o644, owner: int = 0) -> None:
        path = self.layer / name
        for folder in reversed(Path(name).parents[:-1]):
            self._cover(folder, owner)
        path.write_text(text)
        path.chmod(mode)
        os.chown(path, owner, owner)

    def _cover(self, folder: Path, owner: int) -> None:
        path = self.layer / folder
        if path.is_dir():
            return
        path.mkdir()
        if (self.base / folder).is_dir():
            like = (self.base / folder).stat()
            os.chown(path, like.st_uid, like.st_gid)
            path.chmod(like.st_mode & 0o7777)
        else:
            os.chown(path, owner, owner)
            path.chmod(0o700)


def _host_names(host: LabHost) -> str:
    others = "".join(
        f"{other.address} {other.name}\n" for other in host.lab.possible_hosts() if other != host
    )
    return f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n{others}"


def _network(host: LabHost) -> str:
    return (
        "[Match]\nName=host0\n\n"
        f"[Link]\nMTUBytes={way_out_mtu()}\n\n"
        f"[Network]\nAddress={host.address}/24\nGateway={host.lab.gateway}\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )
