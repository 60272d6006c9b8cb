"""Lab hosts that pretend to have GPUs: what they show of them, put on and taken off while they run.

    gpus.put_on("lab-1", gpus.of_capture("tesla-t4-v11.xml"))
    gpus.put_on("lab-1", card.without_driver(), after_reboot=card)
    gpus.take_off("lab-1")

See "Hosts that pretend to have GPUs" in tests/lab/README.md.
"""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import machines
from tests.lab.gpus.pretended import Function, Pretended, of_capture
from tests.lab.gpus.tree import HOME, Link, tree
from tests.lab.layout import Lab, LabError

__all__ = ["Function", "Pretended", "of_capture", "pretending", "put_on", "take_off"]

_PROGRAM = (Path(__file__).parent / "switch.sh").read_text()
_UNIT = f"""[Unit]
Description=Pretended GPUs
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={HOME}/switch boot

[Install]
WantedBy=sysinit.target
"""
_UNIT_NAME = "pretended-gpus.service"


def put_on(
    name: str, gpus: Pretended, *, after_reboot: Pretended | None = None, lab: Lab | None = None
) -> None:
    """Makes a running host show these GPUs at once, in place of others, and again after every reboot.

    `after_reboot`: what it shows from its next boot on instead.
    """
    files: dict[str, str | Link] = {"switch": _PROGRAM, _UNIT_NAME: _UNIT}
    files |= {f"now/{path}": text for path, text in tree(gpus).items()}
    if after_reboot:
        files |= {f"next/{path}": text for path, text in tree(after_reboot).items()}
    script = f"""
        set -e
        mkdir -p {HOME}; cd {HOME}
        [ ! -e switch ] || ./switch off
        rm -rf now next
        base64 -d | tar -x
        cp {_UNIT_NAME} /etc/systemd/system/
        systemctl --quiet enable {_UNIT_NAME}
        ./switch on
    """
    _run(name, script, lab, _archive(files))


def take_off(name: str, lab: Lab | None = None) -> None:
    """Makes a host show what it really has, now and after a reboot; leaves nothing behind."""
    script = f"""
        set -e
        [ -e {HOME} ] || exit 0
        {HOME}/switch off
        systemctl --quiet disable {_UNIT_NAME}
        rm -rf {HOME} /etc/systemd/system/{_UNIT_NAME}
        systemctl daemon-reload
    """
    _run(name, script, lab)


@contextmanager
def pretending(name: str, gpus: Pretended, lab: Lab | None = None) -> Iterator[None]:
    """These GPUs on a host for as long as the block runs."""
    put_on(name, gpus, lab=lab)
    try:
        yield
    finally:
        take_off(name, lab)


def _run(name: str, script: str, lab: Lab | None, sent: str = "") -> None:
    done = machines.run(name, script, input=sent, timeout_seconds=120, lab=lab)
    if done.returncode != 0:
        raise LabError(f"{name} cannot show other GPUs: {done.stderr.strip() or done.stdout.strip()}.")


def _archive(files: dict[str, str | Link]) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            if isinstance(content, Link):
                member.type, member.linkname = tarfile.SYMTYPE, content.target
                archive.addfile(member)
                continue
            data = content.encode()
            member.size = len(data)
            member.mode = 0o755 if content.startswith("#!") else 0o644
            archive.addfile(member, io.BytesIO(data))
    return base64.encodebytes(buffer.getvalue()).decode()
