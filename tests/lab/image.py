"""The base image: a minimal system of this computer's own distribution, made once and shared by all hosts.

An image lies in a folder named by the hash of its recipe, and gets that name only when it is complete: a cut
build is never mistaken for a finished one, and a new recipe never changes what hosts run on. It holds no
secret and no address, so labs can share it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.lab import outer
from tests.lab.layout import Lab, LabError
from tests.lab.shell import is_locked, locked, tell

UNPRIVILEGED_USER = "ops"

_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "iproute2",
    "ca-certificates",
)
"""A bare host: no Python and no curl, because what the product needs it has to install."""

_SETUP = f"""
update-ca-certificates >/dev/null
useradd --create-home --shell /bin/bash {UNPRIVILEGED_USER}
echo '{UNPRIVILEGED_USER} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{UNPRIVILEGED_USER}
chmod 440 /etc/sudoers.d/{UNPRIVILEGED_USER}
cat > /etc/ssh/sshd_config.d/10-keys-only.conf <<'END'
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
END
rm -f /etc/ssh/ssh_host_*
systemctl --quiet enable ssh systemd-networkd
systemctl --quiet mask systemd-networkd-wait-online.service console-getty.service getty@tty1.service
mkdir -p /var/log/journal
: > /etc/machine-id
"""
"""Run inside, once the packages are there. Waiting for the network is masked because the address is static;
the gettys because the console is a pipe."""


@dataclass(frozen=True)
class Recipe:
    """Everything that an image depends on."""

    distribution: outer.Distribution
    sources: str
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Path inside the image to its mode and text (latin-1, so that any bytes are text)."""
    packages: tuple[str, ...] = _PACKAGES
    setup: str = _SETUP

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def recipe() -> Recipe:
    """The recipe as this computer's configuration has it now."""
    distribution = outer.distribution()
    sources = outer.package_sources(distribution)
    taken_over = [*outer.keyrings(sources), *outer.certificates(), *outer.apt_credentials()]
    files = {
        str(path): (path.stat().st_mode & 0o777, path.read_bytes().decode("latin-1")) for path in taken_over
    }
    files["/etc/apt/apt.conf.d/90site"] = (0o644, outer.apt_configuration())
    files["/etc/apt/sources.list.d/distribution.sources"] = (0o644, outer.render_sources(sources))
    return Recipe(distribution, outer.render_sources(sources), files)


def ensure(lab: Lab) -> Path:
    """The image of the current recipe: as it is, or built now (about half a minute)."""
    wanted = recipe()
    image = lab.images / wanted.digest
    lab.images.mkdir(parents=True, exist_ok=True)
    with locked(lab.images / "lock", "another lab that builds its base image"):
        for cut in lab.images.glob("*.unfinished-*"):
            _discard(cut)
        if not image.is_dir():
            _build(wanted, image)
    return image


def discard_unused(lab: Lab, keep: Path) -> None:
    """Remove images of older recipes that no host of this lab has, and none of another lab runs on."""
    if lab.images.parent != lab.directory:
        return
    used = {(host.directory / "base").resolve() for host in lab.hosts()} | {keep}
    for image in lab.images.iterdir():
        if "." not in image.name and image.is_dir() and image not in used and not is_locked(image):
            _discard(image)


def _build(wanted: Recipe, image: Path) -> None:
    began = time.monotonic()
    tell(
        f"building the base image: {wanted.distribution.name} {wanted.distribution.suite}, "
        f"{len(wanted.packages)} packages asked for; about half a minute, once"
    )
    unfinished = image.with_name(f"{image.name}.unfinished-{os.getpid()}")
    with tempfile.TemporaryDirectory() as scratch:
        _install(wanted, unfinished, Path(scratch))
    unfinished.rename(image)
    tell(f"built the base image in {time.monotonic() - began:.0f} s")


def _install(wanted: Recipe, target: Path, scratch: Path) -> None:
    copies = ['rm -f "$1"/etc/apt/sources.list.d/*']
    for number, (name, (mode, text)) in enumerate(wanted.files.items()):
        path = scratch / f"file-{number}"
        path.write_bytes(text.encode("latin-1"))
        copies.append(f'install -D --mode={mode:o} {shlex.quote(str(path))} "$1"{shlex.quote(name)}')
    (scratch / "distribution.sources").write_text(wanted.sources)
    (scratch / "apt.conf").write_text(wanted.files["/etc/apt/apt.conf.d/90site"][1])
    command = [
        # namespaces of its own: whatever ends the build, none of its mounts and processes stay behind
        *("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private"),
        *("--pid", "--fork", "--kill-child", "--mount-proc"),
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--skip=check/qemu"),
        *("--include", ",".join(wanted.packages), f"--aptopt={scratch / 'apt.conf'}"),
        *("--customize-hook", " && ".join(copies)),
        *("--customize-hook", f'chroot "$1" /bin/sh -euc {shlex.quote(wanted.setup)}'),
        *(wanted.distribution.suite, str(target), str(scratch / "distribution.sources")),
    ]
    _run_with_progress(command, scratch / "log")


def _run_with_progress(command: list[str], log: Path) -> None:
    tail: list[str] = []
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            tail = [*tail[-30:], line.rstrip()]
            if line.startswith("I: ") and "hook in shell" not in line:
                tell(f"  {line[3:].rstrip()}")
    if process.wait() != 0:
        errors = [line for line in tail if line.startswith(("E:", "Err:"))] or tail[-1:]
        raise LabError(f"The base image could not be built: {' '.join(errors)}")


def _discard(directory: Path) -> None:
    """An image is a tree of a hundred thousand small files: the name goes first, so that no half is left."""
    doomed = directory.with_name(f"{directory.name.split('.')[0]}.unfinished-discard")
    if directory != doomed:
        directory.rename(doomed)
    shutil.rmtree(doomed)
