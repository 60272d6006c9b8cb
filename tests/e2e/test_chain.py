"""From bare hosts to served models, through every cut; in order, on the same two hosts.

Each cut leaves the hosts as a real one would; the next run takes up the work. The last run of the sequence
must find nothing left to do.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from openai import AuthenticationError, OpenAI

from tests.e2e.deploys import (
    FILES,
    HOSTS,
    HUB,
    UNIT,
    deploy,
    deployed,
    deploying,
    faults,
    heal,
    on,
    running,
    until,
)
from tests.lab import machines
from tests.lab.layout import REPOSITORY, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500), pytest.mark.usefixtures("fleet")]

VICTIM, OTHER = HOSTS

Process = subprocess.Popen[bytes]


def kill_pyinfra(process: Process) -> None:
    os.kill(process.pid, signal.SIGKILL)


def pull_the_plug(process: Process) -> None:
    machines.power_off(VICTIM)
    process.wait(timeout=300)
    machines.boot(VICTIM)


def cut_the_hub(process: Process) -> None:
    for port in (HUB, FILES):
        faults(port, status=503)
    # a download waits minutes for a hub that is away; the operator does not
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    process.kill()


CUTS = [kill_pyinfra, pull_the_plug, cut_the_hub]


def fetching() -> bool:
    """The host is in the middle of its wheels, and of its model."""
    model = "running" in on(VICTIM, "systemctl show -P SubState 'bringup-model-*'")
    return model and any(running(VICTIM, task) for task in ("install-torch", "install-vllm"))


def starting_the_service() -> bool:
    return on(VICTIM, f"systemctl show -P ActiveState {UNIT}") == "activating"


def served(host: str) -> bool:
    return on(host, f"systemctl is-active {UNIT}") == "active"


def cut_when(moment: Callable[[], bool], cut: Callable[[Process], None], log: Path) -> None:
    """Starts a deploy, waits for the moment, cuts."""
    with deploying(log) as process:
        until(f"{moment.__name__} (log: {log})", moment)
        assert process.poll() is None, log.read_text()[-3000:]
        cut(process)


PREFIX = "/opt/bringup/conda/envs/serve"
STOP = f"systemctl stop {UNIT}"
# of a host that has been installed; nothing serves then, for a second server beside it costs minutes
UNDO = {
    fetching: f"{STOP}; rm -rf /srv/models/*; cd {PREFIX}/bin && ./uv pip uninstall --python ./python vllm &&"
    " ./uv cache clean --cache-dir /var/cache/bringup/uv vllm",
    starting_the_service: STOP,
}


@pytest.fixture(scope="module", autouse=True)
def hosts_that_are_bare(bare_hosts: None) -> None:
    """Whatever was done to them before: the first cut is one of a first installation."""
    if any(on(host, "ls -d /opt/bringup 2>/dev/null") for host in HOSTS):
        machines.down()
        machines.up(len(HOSTS))


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
@pytest.mark.parametrize("moment", UNDO, ids=lambda moment: moment.__name__)
def test_the_run_after_a_cut_completes(
    moment: Callable[[], bool], cut: Callable[[Process], None], tmp_path: Path
) -> None:
    on(VICTIM, f"if [ -d {PREFIX} ]; then {UNDO[moment]}; fi")
    faults(FILES, rate=10_000_000, match="/wheels/")
    faults(HUB, rate=150_000, match=".safetensors")
    cut_when(moment, cut, tmp_path / "log")
    # as any package that is installed meanwhile may do; what is under way must not lose its end by it
    on(OTHER, "systemctl daemon-reload")
    heal()
    deployed()
    assert all(served(host) for host in HOSTS)
    # nothing that ended while nobody waited is kept, nor what it had opened
    left = "systemctl list-units --all --plain --no-legend 'bringup-*' | grep -v gateway; ls /run/bringup"
    assert [on(host, f"{left}; nft list tables 2>/dev/null") for host in HOSTS] == ["", ""]


def processes() -> dict[str, str]:
    """Host -> main process and boot of its service."""
    show = f"systemctl show -P MainPID {UNIT}; cat /proc/sys/kernel/random/boot_id"
    return {host: on(host, show) for host in HOSTS}


def test_a_second_run_changes_nothing_and_restarts_nothing() -> None:
    before = processes()
    run = deployed()
    assert run.changed() == {}
    assert processes() == before


def test_each_host_answers_in_chinese_and_refuses_who_has_no_key() -> None:
    lab = Lab.from_environment()
    key = (lab.directory / "api-key").read_text().strip()
    for number, _ in enumerate(HOSTS, start=1):
        url = f"http://{lab.prefix}.1{number}:8000/v1"
        client = OpenAI(base_url=url, api_key=key, timeout=60)
        model = client.models.list().data[0].id
        reply = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "服务正常吗？"}], max_tokens=16
        )
        assert (reply.choices[0].message.content or "").strip()
        with pytest.raises(AuthenticationError):
            OpenAI(base_url=url, api_key="EMPTY", timeout=60).models.list()


def test_the_fleet_is_proved_by_the_checks() -> None:
    done = subprocess.run(
        [REPOSITORY / ".venv/bin/pytest", "-q", "tests/verify", "--inventory", "inventories/lab.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_a_refused_host_is_left_alone_while_the_others_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "inventories"
    shutil.copytree(REPOSITORY / "inventories", folder)
    inventory = folder / "lab.py"
    inventory.write_text(
        inventory.read_text() + "\nlab[0][1]['serve'] = {'chat': {'port': 22}}\n"
        "lab[1][1]['access'] = {'requests_per_second': 99}\n"
    )
    on(VICTIM, "touch /run/before")
    run = deploy("--json", inventory=str(inventory))
    assert run.code == 1
    assert "lab-1: serve.chat.port: 22 is not valid" in run.errors
    assert run.results["failed_hosts"] == [VICTIM]
    assert {host for hosts in run.changed().values() for host in hosts} == {OTHER}
    changed = "find /etc /opt /srv -newer /run/before -type f | grep -v /etc/resolv.conf"
    assert on(VICTIM, changed) == ""


def test_an_unprivileged_user_with_sudo_deploys_as_well() -> None:
    run = deploy("--json", BRINGUP_LAB_USER="ops")
    assert run.code == 0, run.errors[-3000:]


def test_a_service_that_shall_be_absent_goes_and_comes_back_with_its_damaged_model_mended() -> None:
    gone = deploy("--json", "--limit", VICTIM, "--data", 'serve={"chat": {"state": "absent"}}')
    assert gone.code == 0, gone.errors[-3000:]
    assert on(VICTIM, f"systemctl is-active {UNIT}; ls /etc/systemd/system/{UNIT} 2>/dev/null") == "inactive"
    shard = on(VICTIM, "ls /srv/models/*/*/*/*.safetensors | head -n 1")
    whole = on(VICTIM, f"sha256sum {shard}")
    on(VICTIM, f"printf x | dd of={shard} bs=1 seek=4096 conv=notrunc status=none")
    assert deployed().changed()["Wait for the model download"] == [VICTIM]
    assert on(VICTIM, f"sha256sum {shard}") == whole
    assert served(VICTIM)
    assert deployed().changed() == {}
