"""The lab's keys, made once: they stay when hosts come and go, so strict host-key checking never trips."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.lab.layout import Lab
from tests.lab.shell import call


def ensure(lab: Lab) -> None:
    """Make what is missing of login key, host key and API key, and the files that ssh reads."""
    for key, comment in ((lab.login_key, "lab operator"), (lab.host_key, "lab host")):
        if not key.exists():
            _make_key(key, comment)
    if not lab.api_key.exists():
        write_private(lab.api_key, f"sk-lab-{secrets.token_urlsafe(24)}\n")
    kind, public = lab.host_key.with_suffix(".pub").read_text().split()[:2]
    names = "".join(f"{host.name},{host.address} {kind} {public}\n" for host in lab.possible_hosts())
    lab.known_hosts.write_text(names)
    lab.ssh_config.write_text(_ssh_config(lab))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at no moment otherwise, and whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)


def _make_key(key: Path, comment: str) -> None:
    new = key.with_name(f"{key.name}.new")
    for leftover in (new, new.with_name(f"{new.name}.pub")):
        leftover.unlink(missing_ok=True)
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", new)
    new.with_name(f"{new.name}.pub").rename(key.with_suffix(".pub"))
    new.rename(key)


def _ssh_config(lab: Lab) -> str:
    """`ssh -F FILE lab-1`, and the same file for any tool that reads OpenSSH's configuration."""
    hosts = "".join(f"Host {host.name}\n  HostName {host.address}\n" for host in lab.possible_hosts())
    return (
        f"{hosts}Host lab-* {lab.prefix}.*\n"
        "  User root\n"
        f'  IdentityFile "{lab.login_key}"\n'
        "  IdentitiesOnly yes\n"
        f'  UserKnownHostsFile "{lab.known_hosts}"\n'
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  LogLevel ERROR\n"
    )
