"""The workstation case: bringup runs on the host that it serves, through pyinfra's @local."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.e2e.deploys import HOSTS, deployed
from tests.lab import machines
from tests.lab.layout import REPOSITORY, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("fleet")]

HOST = HOSTS[1]
FOLDER = "/root/bringup"
PREFIX = "/opt/bringup/conda/envs/serve"
UV = f"{PREFIX}/bin/uv"


def send(archive: bytes, folder: str) -> None:
    """Unpacks a tar archive on the host."""
    done = subprocess.run(
        [
            *machines.ssh_command(Lab.from_environment().host(HOST)),
            f"mkdir -p {folder} && tar -x -C {folder}",
        ],
        input=archive,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def packed(command: list[str]) -> bytes:
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout


def test_a_host_deploys_to_itself_and_finds_what_was_deployed_from_afar() -> None:
    deployed()
    lab = Lab.from_environment()
    offer = ["hubs/sources.json", "hubs/conda", "api-key"]
    send(packed(["git", "archive", "HEAD"]), FOLDER)
    send(packed(["tar", "-c", "-C", str(lab.directory), *offer]), str(lab.directory))
    script = f"""
        set -e; cd {FOLDER}; set -a; . /etc/environment
        export BRINGUP_LAB_DIR={lab.directory} BRINGUP_LAB_NET={lab.prefix}
        echo 'lab = ["@local"]' >inventories/lab.py
        {UV} venv --quiet --clear --python {PREFIX}/bin/python .venv
        {UV} pip sync --quiet --system-certs --python .venv/bin/python requirements.txt
        .venv/bin/pyinfra -y --json inventories/lab.py deploy.py 2>/tmp/said || {{ cat /tmp/said; exit 1; }}
    """
    done = machines.run(HOST, script, timeout_seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout)["results"]
    assert results["totals"]["no_change"] > 15
    assert results["totals"]["success"] == 0, results
