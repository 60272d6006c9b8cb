"""The burn-in against fake hosts: installed, run once, its verdict in one sentence, taken off again."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ops.chinese import translated
from tests.plan.test_burn_in import record, sample
from tests.probes import with_block
from tests.roles.fleet import Answer, FakeHost, Run, deploy
from tests.roles.test_deploy import GPU, ONE

DATA = ONE | {"burn_in": {"level": 2}}
MINE = {"driver": "580.65.06", "level": 2, "gpus": ["0000:18:00.0 0x2330"]}
PACKAGES = ("datacenter-gpu-manager-4-cuda13", "datacenter-gpu-manager-4-proprietary-cuda13")
READ = "^cat /etc/bringup/burn-in.json"


def run(text: str, said: str, data: dict[str, Any] | None = None) -> Run:
    return deploy(FakeHost("gpu", text, DATA if data is None else data, answers=[Answer(READ, said)]))


def of_dcgm(run: Run) -> list[str]:
    return [kind for kind in run.kinds("gpu") if "dcgm" in kind or "burn-in" in kind]


def started(run: Run, task: str) -> str:
    """The command that started a task."""
    (command,) = (x.command for x in run.execs["gpu"] if f"--unit=bringup-{task}.service" in x.command)
    return command


TESTED = ["start dcgm", "join dcgm", "start burn-in", "join burn-in", "cat /etc/bringup/burn-in.json"]


def installed(text: str) -> str:
    lines = [f"{name} ii  1:4.4.1-1" for name in (*PACKAGES, "ca-certificates", "curl", "libnuma1")]
    return with_block(text, "packages", *lines)


def test_gpus_are_tested_after_torch_and_before_anything_is_served() -> None:
    done = run(GPU, record(sample("eight-gpus-level1"), **MINE))
    assert done.code == 0, done.output[-2000:]
    assert of_dcgm(done) == TESTED
    kinds = done.kinds("gpu")
    assert kinds.index("join check-torch") < kinds.index("start dcgm") < kinds.index("service restart")
    install = started(done, "dcgm")
    assert f"install {' '.join(PACKAGES)}" in install and "enable --now nvidia-dcgm" in install
    # this driver is none of ours to hold, and so is what belongs to it
    assert "driver hold" not in install


def failed() -> str:
    """The record of a GPU whose memory is faulty."""
    result = sample("gb10-level2")
    entry = result["DCGM Diagnostic"]["test_categories"][1]["tests"][0]["results"][0]
    entry |= {"status": "Fail", "warnings": [{"error_severity": 2, "warning": "Memory errors were found."}]}
    return record(result, **MINE)


def test_a_gpu_that_fails_costs_its_host_and_is_named() -> None:
    done = run(GPU, failed())
    assert done.code != 0
    assert "testing the GPUs: burn-in: memory failed on GPU 0: Memory errors were found." in done.output
    assert "warning: burn-in: software failed on GPU 0: Persistence Mode:" in done.output
    assert "service restart" not in done.kinds("gpu")


def test_gpus_that_passed_are_not_tested_again() -> None:
    text = with_block(installed(GPU), "burn_in", record(sample("eight-gpus-level1"), **MINE))
    assert of_dcgm(run(text, "")) == []


def test_gpus_in_use_are_left_in_peace() -> None:
    text = with_block(installed(GPU), "gpu_holders", "812 python3 0::/system.slice/other.service")
    done = run(text, "")
    assert of_dcgm(done) == []
    assert "the diagnostic waits: the GPUs are in use by 812 python3" in " ".join(done.output.split())


@pytest.mark.parametrize("driver", ["580.65.06", "570.86.15"])
def test_a_gpu_that_failed_is_not_served_while_its_next_test_waits(driver: str) -> None:
    recorded = failed().replace("580.65.06", driver)
    text = with_block(installed(GPU), "burn_in", recorded)
    done = run(with_block(text, "gpu_holders", "812 python3 0::/system.slice/other.service"), "")
    sentence = (
        "burn_in: the diagnostic failed (memory failed on GPU 0: Memory errors were found), and cannot run "
        "again: the GPUs are in use by 812 python3 0::/system.slice/other.service. Stop that, and run again."
    )
    assert done.code != 0 and sentence in " ".join(done.output.split())
    assert translated(sentence)
    assert "service restart" not in done.kinds("gpu")


def test_dcgm_goes_when_it_shall_be_absent() -> None:
    done = run(installed(GPU), "", ONE | {"burn_in": {"state": "absent"}})
    assert of_dcgm(done) == ["start dcgm", "join dcgm"]
    (command,) = (trip.command for trip in done.execs["gpu"] if "--unit=bringup-dcgm.service" in trip.command)
    assert command.index("apt-mark unhold") < command.index(f"purge {' '.join(PACKAGES)}")
    assert "rm -f /etc/bringup/burn-in.json" in command
    assert of_dcgm(run(GPU, "", ONE | {"burn_in": {"state": "absent"}})) == []


@pytest.mark.parametrize(
    ("said", "status"),
    [("Successfully ran diagnostic for group.\n{}", 0), ('Error: "no" \\ connection\n', 255)],
)
def test_what_dcgmi_says_is_recorded_as_json_whatever_it_is(tmp_path: Path, said: str, status: int) -> None:
    """The task's own script in a real shell; dcgmi and systemctl are programs that answer as told."""
    done = run(GPU, "")
    (trip,) = (trip for trip in done.execs["gpu"] if "--unit=bringup-burn-in.service" in trip.command)
    script = trip.script().replace("/etc/bringup", str(tmp_path))
    text = said.format(json.dumps(sample("gb10-level1"), indent=1)) if "{}" in said else said
    (tmp_path / "output").write_text(text)
    for name, body in (("dcgmi", f"cat {tmp_path}/output; exit {status}"), ("systemctl", "true")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    subprocess.run(["sh", "-euc", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    recorded = json.loads((tmp_path / "burn-in.json").read_text())
    assert (recorded["level"], recorded["exit"], recorded["gpus"]) == (2, status, MINE["gpus"])
    assert ("result" in recorded) == (status == 0) and ("words" in recorded) == (status != 0)
