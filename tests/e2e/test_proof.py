"""Sabotage on served hosts: each is found, told in one sentence, and nothing else is told.

Several that do not touch one another are done to a host before one run of the checks looks at it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.deploys import HOSTS, UNIT, deployed, on, until
from tests.lab.layout import REPOSITORY

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("fleet")]

PREFIX = "/opt/bringup/conda/envs/serve"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
FRONT = "/etc/bringup/gateway/nginx.conf"
SHARD = "$(find /srv/models -name '*.safetensors' | head -n 1)"
PACKAGES = "/var/lib/dpkg/status"


@dataclass(frozen=True)
class Sabotage:
    """What is done to a host, how it is undone, and the one sentence in which it is to be told."""

    do: str
    undo: str
    told: str


def _listener(address: str, port: int) -> str:
    """A program of the service's user and environment that listens."""
    program = f"import socket,time; s=socket.create_server(('{address}',{port})); time.sleep(600)"
    return (
        f"systemd-run --quiet --unit=stranger-{port} --property=User=bringup {PREFIX}/bin/python -c "
        f'"{program}"; for _ in $(seq 100); do '
        f'ss -Hltn | grep -q "{address}:{port} " && break; sleep 0.1; done'
    )


# Each host's sabotages do not touch one another.
FIRST: Mapping[str, Sabotage] = {
    "edited unit": Sabotage(
        f"cp -p {UNIT_FILE} /root/unit && echo '# by hand' >>{UNIT_FILE}",
        f"mv -f /root/unit {UNIT_FILE} && systemctl daemon-reload",
        rf"{UNIT_FILE} was edited on the host since the deploy of ",
    ),
    "disabled service": Sabotage(
        f"systemctl --quiet disable {UNIT}", f"systemctl --quiet enable {UNIT}", rf"{UNIT} is disabled"
    ),
    "changed model byte, its time kept": Sabotage(
        f"f={SHARD}; cp -p $f /root/shard; touch -r $f /root/time;"
        " printf x | dd of=$f bs=1 seek=4096 conv=notrunc status=none; touch -r /root/time $f",
        f"f={SHARD}; cat /root/shard >$f; touch -r /root/time $f",
        r"safetensors has other bytes than were verified",
    ),
    "world-readable secret": Sabotage(
        f"chmod 644 {FRONT}", f"chmod 640 {FRONT}", rf"{FRONT} is root:bringup-gateway 644, deployed was"
    ),
    "downgraded package": Sabotage(
        f"cp -p {PACKAGES} /root/status;"
        f" sed -i '/^Package: libnuma1$/,/^$/s/^Version: .*/Version: 1.0/' {PACKAGES}",
        f"mv -f /root/status {PACKAGES}",
        r"package libnuma1 is 1\.0, and was ",
    ),
    "wrong transformers": Sabotage(
        f"cd {PREFIX}/lib/python3*/site-packages && mv transformers-*.dist-info /root/ &&"
        " cp -a /root/transformers-*.dist-info transformers-4.37.0.dist-info",
        f"cd {PREFIX}/lib/python3*/site-packages && rm -r transformers-4.37.0.dist-info &&"
        " mv /root/transformers-*.dist-info .",
        r"transformers is 4\.37\.0 in ",
    ),
    "opened port": Sabotage(
        _listener("0.0.0.0", 9999),
        "systemctl stop stranger-9999",
        r"is of ours, is in no plan, and listens on 0\.0\.0\.0 port 9999",
    ),
    "second server on the same port": Sabotage(
        _listener("127.0.0.1", 8000),
        "systemctl stop stranger-8000",
        r"listens on 127\.0\.0\.1 port 8000 beside ",
    ),
}
SECOND: Mapping[str, Sabotage] = {
    "deleted stamp": Sabotage(
        "mv /etc/bringup/plan.json /root/",
        "mv /root/plan.json /etc/bringup/",
        r"/etc/bringup/plan\.json is not there",
    ),
    "stopped service": Sabotage(
        f"systemctl stop {UNIT}", f"systemctl --no-block start {UNIT}", rf"{UNIT} is enabled, inactive, dead"
    ),
    "missing environment": Sabotage(
        f"mv {PREFIX} /opt/bringup/conda/kept",
        f"mv /opt/bringup/conda/kept {PREFIX}",
        rf"no whole environment at {PREFIX}",
    ),
    "a shell for the service user": Sabotage(
        "usermod -s /bin/bash bringup",
        "usermod -s /usr/sbin/nologin bringup",
        r"bringup has the shell /bin/bash",
    ),
    "key removed from the front": Sabotage(
        f"cp -p {FRONT} /root/front; sed -i 's/secure_link/# secure_link/' {FRONT}",
        f"mv -f /root/front {FRONT}",
        rf"{FRONT} has another content than planned",
    ),
    "expired certificate": Sabotage(
        "cd /etc/bringup/gateway && openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=x"
        " -keyout /root/key -out /root/own.pem 2>/dev/null &&"
        " openssl x509 -in /root/own.pem -signkey /root/key -days -1 -out own-certificate.pem 2>/dev/null",
        "rm -f /etc/bringup/gateway/own-certificate.pem",
        r"own-certificate\.pem has expired",
    ),
}


def verify(folder: Path, *arguments: str) -> tuple[int, dict[str, list[str]]]:
    """Runs the checks. Returns the exit code and, per host, the sentences of its report."""
    done = subprocess.run(
        [
            *(REPOSITORY / ".venv/bin/pytest", "-q", "tests/verify", "--inventory", "inventories/lab.py"),
            *(f"--junitxml={folder / 'junit.xml'}", *arguments),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"BRINGUP_RUNS": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1, 2), done.stdout[-4000:]
    report = json.loads((folder / "latest" / "report.json").read_text())
    told = {host["name"]: [problem["sentence"] for problem in host["problems"]] for host in report["hosts"]}
    return done.returncode, told


@pytest.fixture(scope="module")
def sabotaged(bare_hosts: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, list[str]]]:
    """What one run of the checks tells of the two hosts, which are then mended before any test looks."""
    deployed()
    both = list(zip(HOSTS, (FIRST, SECOND), strict=True))
    for host, sabotages in both:
        for sabotage in sabotages.values():
            on(host, sabotage.do)
    try:
        return verify(tmp_path_factory.mktemp("runs"))
    finally:
        for host, sabotages in both:
            for sabotage in reversed(list(sabotages.values())):
                on(host, sabotage.undo)
        until("the service is back", lambda: on(HOSTS[1], f"systemctl is-active {UNIT}") == "active")


@pytest.mark.parametrize(
    ("host", "sabotage"),
    [
        *(pytest.param(HOSTS[0], sabotage, id=name) for name, sabotage in FIRST.items()),
        *(pytest.param(HOSTS[1], sabotage, id=name) for name, sabotage in SECOND.items()),
    ],
)
def test_sabotage_is_told_in_one_sentence(
    sabotaged: tuple[int, dict[str, list[str]]], host: str, sabotage: Sabotage
) -> None:
    told = [sentence for sentence in sabotaged[1][host] if re.search(sabotage.told, sentence)]
    assert len(told) == 1, "\n".join(sabotaged[1][host])


def test_nothing_else_is_told(sabotaged: tuple[int, dict[str, list[str]]]) -> None:
    code, told = sabotaged
    others = [
        sentence
        for host, sabotages in zip(HOSTS, (FIRST, SECOND), strict=True)
        for sentence in told[host]
        if not any(re.search(sabotage.told, sentence) for sabotage in sabotages.values())
    ]
    assert (code, others) == (1, [])


def test_what_was_mended_is_as_the_deploy_left_it(tmp_path: Path) -> None:
    """Runs after the sabotage: nothing of it is left, and nobody deployed meanwhile."""
    code, told = verify(tmp_path)
    assert (code, told) == (0, {host: [] for host in HOSTS})
    assert "check" in (tmp_path / "junit.xml").read_text()


def test_a_host_that_cannot_be_reached_is_neither_proved_nor_failed(tmp_path: Path) -> None:
    known = Path(os.environ.get("BRINGUP_LAB_DIR", "/var/lib/bringup-lab")) / "known_hosts"
    text = known.read_text()
    try:
        known.write_text("")
        code, told = verify(tmp_path, "--limit", HOSTS[0])
    finally:
        known.write_text(text)
    assert code == 2
    assert "cannot be reached as the inventory says" in told[HOSTS[0]][0]
