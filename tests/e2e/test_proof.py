"""Sabotage on served hosts, one at a time: each is found, told in one sentence, and nothing else is told.

At any time each of the two hosts has one sabotage, and one run of the checks looks at both.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.deploys import HOSTS, UNIT, deploy, on, until
from tests.e2e.tools import installed
from tests.lab import machines
from tests.lab.layout import REPOSITORY, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("fleet")]

PREFIX = "/opt/bringup/conda/envs/serve"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
FRONT, FRONT_UNIT = "/etc/bringup/gateway/nginx.conf", "bringup-gateway.service"
CERTIFICATE, KEY = "/etc/bringup/gateway/own-certificate.pem", "/etc/bringup/gateway/own-key.pem"
SHARD = "$(find /srv/models -name '*.safetensors' | head -n 1)"
# The fronts speak https in this module, so that a certificate is in use.
TLS = {"BRINGUP_LAB_TLS": "on"}


@dataclass(frozen=True)
class Sabotage:
    """What is done to a host, how it is undone, and the one sentence in which it is to be told.

    `under`: what the checks themselves run under, where it is not the host that is meddled with.
    """

    name: str
    do: str
    undo: str
    told: str
    under: tuple[str, ...] = ()


def _server(address: str, port: int) -> str:
    """A program of the service's user and environment that listens."""
    return (
        "systemd-run --quiet --unit=stranger --property=User=bringup "
        f"{PREFIX}/bin/python -m http.server --bind {address} --directory /var/empty {port};"
        f" for _ in $(seq 600); do ss -Hltn | grep -q '{address}:{port} ' && break; sleep 0.1; done"
    )


def _package(version: str) -> str:
    """Installs libnuma1 in this version with dpkg itself; the files are those that are there."""
    return f"""
        rm -rf /root/package && mkdir -p /root/package/DEBIAN
        dpkg-query -s libnuma1 | sed -e '/^Status:/d' -e "s/^Version: .*/Version: {version}/" \
            >/root/package/DEBIAN/control
        dpkg-query -L libnuma1 | while read -r path; do if [ -f "$path" ]; then echo "$path"; fi; done |
            tar -c -P -T - | tar -x -C /root/package
        dpkg-deb --build /root/package /root/package.deb >/dev/null
        dpkg --install --force-downgrade /root/package.deb >/dev/null 2>&1
        rm -r /root/package /root/package.deb"""


FIRST = (
    Sabotage(
        "edited unit",
        f"cp -p {UNIT_FILE} /root/unit; echo '# by hand' >>{UNIT_FILE}",
        f"mv -f /root/unit {UNIT_FILE}; systemctl daemon-reload",
        rf"{UNIT_FILE} was edited on the host since the deploy of ",
    ),
    Sabotage(
        "changed model byte, its time kept",
        f"f={SHARD}; cp -p $f /root/shard; touch -r $f /root/time;"
        " printf x | dd of=$f bs=1 seek=4096 conv=notrunc status=none; touch -r /root/time $f",
        f"f={SHARD}; cat /root/shard >$f; touch -r /root/time $f",
        r"safetensors has other bytes than were verified",
    ),
    Sabotage(
        "world-readable key",
        f"chmod 644 {KEY}",
        f"chmod 640 {KEY}",
        rf"{KEY} is root:bringup-gateway 644: others may read or change it",
    ),
    Sabotage(
        "downgraded package",
        f"dpkg-query -W -f '${{Version}}' libnuma1 >/root/version; {_package('1.0')}",
        _package("$(cat /root/version)"),
        r"package libnuma1 is 1\.0, and was ",
    ),
    Sabotage(
        "wrong transformers version",
        f"cd {PREFIX}/lib/python3*/site-packages; cp -a transformers-*.dist-info /root/;"
        " mv transformers-*.dist-info transformers-4.37.0.dist-info;"
        " sed -i 's/^Version: .*/Version: 4.37.0/' transformers-4.37.0.dist-info/METADATA;"
        " cp -p transformers/__init__.py /root/;"
        " sed -i 's/^__version__ = .*/__version__ = \"4.37.0\"/' transformers/__init__.py",
        f"cd {PREFIX}/lib/python3*/site-packages; rm -r transformers-4.37.0.dist-info;"
        " mv /root/transformers-*.dist-info .; mv -f /root/__init__.py transformers/",
        r"transformers is 4\.37\.0 in ",
    ),
    Sabotage(
        "opened port",
        _server("0.0.0.0", 9999),
        "systemctl stop stranger",
        r"is of ours, is in no plan, and listens on 0\.0\.0\.0 port 9999",
    ),
    Sabotage(
        "full disk",
        "mkdir -p /run/small; mount -t tmpfs -o size=16m small /run/small; cd /run/small; mkdir new work;"
        " mount -t overlay -o lowerdir=/opt,upperdir=/run/small/new,workdir=/run/small/work small /opt;"
        " dd if=/dev/zero of=/run/small/much bs=1M 2>/dev/null || true",
        "cd /; umount -l /opt; umount -l /run/small; rmdir /run/small",
        r"small \(at /opt\) has 0\.00 GiB free",
    ),
    Sabotage(
        # a vLLM listens when it serves, after a minute: for the checks it is a program of the environment
        "stopped service, its port taken by a second server of the environment",
        f"systemctl stop {UNIT}; {_server('127.0.0.1', 18000)}",
        f"systemctl stop stranger; systemctl --no-block start {UNIT}",
        r"python \(pid \d+\) listens on 127\.0\.0\.1 port 18000, which service chat cannot have\. Stop it",
    ),
)
SECOND = (
    Sabotage(
        "deleted stamp",
        "mv /etc/bringup/plan.json /root/",
        "mv /root/plan.json /etc/bringup/",
        r"/etc/bringup/plan\.json is not there",
    ),
    Sabotage(
        "missing environment",
        f"mv {PREFIX} /opt/bringup/conda/kept",
        f"mv /opt/bringup/conda/kept {PREFIX}",
        rf"no whole environment at {PREFIX}|{PREFIX}: there is no whole environment",
    ),
    Sabotage(
        "key removed from the front",
        f"cp -p {FRONT} /root/front; sed -i 's/$secure_link != \"1\"/$secure_link = never/' {FRONT};"
        f" systemctl reload {FRONT_UNIT}",
        f"mv -f /root/front {FRONT}; systemctl reload {FRONT_UNIT}",
        rf"{FRONT} has another content than planned, and chat answers without a key",
    ),
    Sabotage(
        "expired certificate",
        f"cp -p {CERTIFICATE} /root/certificate;"
        f" openssl x509 -in /root/certificate -signkey {KEY} -days -1 -out /root/expired 2>/dev/null;"
        f" cat /root/expired >{CERTIFICATE}; systemctl reload {FRONT_UNIT}",
        f"mv -f /root/certificate {CERTIFICATE}; systemctl reload {FRONT_UNIT}",
        r"own-certificate\.pem has expired",
    ),
    Sabotage(
        "loosened confinement",
        f"mkdir -p /etc/systemd/system/{FRONT_UNIT}.d; printf '[Service]\nProtectSystem=no\n"
        f"SystemCallFilter=\nPrivateDevices=no\nRestrictNamespaces=no\n' "
        f">/etc/systemd/system/{FRONT_UNIT}.d/mine.conf; systemctl daemon-reload",
        f"rm -r /etc/systemd/system/{FRONT_UNIT}.d; systemctl daemon-reload",
        r"bringup-gateway\.service has an exposure of \d\.\d .*mine\.conf changes it",
    ),
    Sabotage(
        "a shell for the service user",
        "usermod -s /bin/bash bringup",
        "usermod -s /usr/sbin/nologin bringup",
        r"bringup has the shell /bin/bash",
    ),
    Sabotage(
        "disabled service",
        f"systemctl --quiet disable {UNIT}",
        f"systemctl --quiet enable {UNIT}",
        rf"{UNIT} is disabled: a reboot ends it",
    ),
    Sabotage(
        "stopped service",
        f"systemctl stop {UNIT}",
        f"systemctl --no-block start {UNIT}",
        rf"{UNIT} is inactive: it was stopped or broke",
    ),
)
# Containers share the clock of this computer: the one that the checks run by is put ahead instead.
CLOCK = Sabotage(
    "clock off by an hour",
    "true",
    "true",
    r"its clock is 60 minutes behind this machine's",
    under=("faketime", "-f", "+1h"),
)
ROUNDS = (*zip(FIRST, SECOND, strict=True), (CLOCK, CLOCK))


def done_on(host: str, script: str) -> None:
    """Runs a script; one that fails half-way sabotages, or mends, nothing that is known."""
    done = machines.run(host, f"set -e; {script}", timeout_seconds=300)
    assert done.returncode == 0, f"{script}: {done.stderr}"


def behind_the_first(folder: Path) -> Path:
    """An inventory of the same two hosts, the second of which is reached through the first alone."""
    lab = Lab.from_environment()
    hosts = {host.name: host.address for host in map(lab.host, HOSTS)}
    login = f"User root\nIdentityFile {lab.login_key}\nUserKnownHostsFile {lab.known_hosts}\n"
    blocks = [f"Host {name}\nHostName {address}\n{login}" for name, address in hosts.items()]
    (folder / "ssh_config").write_text(f"{blocks[0]}{blocks[1]}ProxyJump {HOSTS[0]}\n")
    (folder / "group_data").symlink_to(REPOSITORY / "inventories/group_data")
    data = {"ssh_hostname": HOSTS[1], "ssh_config_file": str(folder / "ssh_config")}
    inventory = folder / "jump.py"
    inventory.write_text(
        f"lab = [({HOSTS[0]!r}, {{'ssh_hostname': {hosts[HOSTS[0]]!r}}}), ({HOSTS[1]!r}, {data!r})]\n"
    )
    return inventory


def verify(
    folder: Path,
    *arguments: str,
    under: tuple[str, ...] = (),
    inventory: Path | str = "inventories/lab.py",
) -> tuple[int, dict[str, list[str]]]:
    """Runs the checks. Returns the exit code and, per host, the sentences of its report."""
    # an operator's machine keeps compiled modules from run to run
    python = {"PYTHONPYCACHEPREFIX": str(folder.parent / "pycache"), "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [
            *under,
            *(REPOSITORY / ".venv/bin/pytest", "-q", "tests/verify", "--inventory", str(inventory)),
            *(f"--junitxml={folder / 'junit.xml'}", *arguments),
        ],
        cwd=REPOSITORY,
        env=os.environ | TLS | python | {"BRINGUP_RUNS": str(folder), "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1, 2), done.stdout[-4000:]
    report = json.loads((folder / "latest" / "report.json").read_text())
    told = {host["name"]: [problem["sentence"] for problem in host["problems"]] for host in report["hosts"]}
    return done.returncode, told


@pytest.fixture(scope="module")
def served(bare_hosts: None) -> Iterator[None]:
    """Both hosts as planned, with fronts that speak https; afterwards as other tests want them."""
    installed("faketime")
    run = deploy("--json", **TLS)
    assert run.code == 0, run.errors[-4000:]
    yield
    run = deploy("--json")
    assert run.code == 0, run.errors[-4000:]


def serves(host: str) -> bool:
    return on(host, f"systemctl is-active {UNIT}") == "active"


@pytest.mark.parametrize("sabotages", ROUNDS, ids=lambda pair: f"{pair[0].name}, {pair[1].name}")
def test_sabotage_is_told_in_one_sentence_and_nothing_else_is(
    served: None, sabotages: tuple[Sabotage, Sabotage], tmp_path: Path
) -> None:
    both = list(zip(HOSTS, sabotages, strict=True))
    try:
        for host, sabotage in both:
            done_on(host, sabotage.do)
        code, told = verify(tmp_path, under=sabotages[0].under)
    finally:
        for host, sabotage in both:
            done_on(host, sabotage.undo)
            until(f"{UNIT} of {host}", partial(serves, host))
    for host, sabotage in both:
        assert len(told[host]) == 1, (sabotage.name, told[host])
        assert re.search(sabotage.told, told[host][0]), (sabotage.name, told[host])
    assert code == 1


def test_what_was_mended_is_as_the_deploy_left_it(served: None, tmp_path: Path) -> None:
    """Nothing of the sabotage is left, and nobody deployed meanwhile; a model generates without its server.

    The second host is reached through the first. The checks themselves leave nothing behind on either.
    """
    ours = "/etc /opt /srv /home /root /tmp /var/tmp /var/cache/bringup /var/lib/bringup"
    changed = f"find {ours} -xdev -newer /run/before -type f | sort"
    for host in HOSTS:
        done_on(host, "touch /run/before")
    inventory = behind_the_first(tmp_path)
    assert verify(tmp_path, inventory=inventory) == (0, {host: [] for host in HOSTS})
    deep = verify(tmp_path, "--deep", "--limit", HOSTS[1], inventory=inventory)
    assert deep == (0, {HOSTS[1]: []})
    (host,) = json.loads((tmp_path / "latest" / "report.json").read_text())["hosts"]
    offline = {check["name"]: check["outcome"] for check in host["checks"] if "generates" in check["name"]}
    assert list(offline.values()) == ["passed", "passed"], offline
    first = Lab.from_environment().host(HOSTS[0]).address
    assert f"from {first} " in on(HOSTS[1], "journalctl --quiet --output=cat --unit=ssh --grep=Accepted")
    assert {host: on(host, changed) for host in HOSTS} == dict.fromkeys(HOSTS, "")


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
