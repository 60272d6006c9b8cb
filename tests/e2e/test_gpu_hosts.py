"""Hosts that pretend to have GPUs: what the probe sees of them, and what `--dry` says that they would get.

The hosts share this computer's kernel and have no GPU; nothing here ever computed on one.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plan import probe, settings
from plan.decide import plan_host
from plan.errors import PlanError
from plan.host import HostPlan
from plan.probe import PACKAGES, Probe
from roles.host import facts
from tests.e2e.deploys import PYINFRA
from tests.e2e.test_lab_machines import own_lab
from tests.lab import gpus, machines
from tests.lab.gpus import Pretended
from tests.lab.layout import REPOSITORY, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

HOST = "lab-1"
QWEN = "Qwen/Qwen2.5-{}-Instruct"


@dataclass(frozen=True)
class Expected:
    """What the plan of a machine with one service holds."""

    hardware: str
    driver: str
    cuda: str
    torch: str
    vllm: str
    tensor_parallel: int


# Capture, what is served -> the plan. The drivers are those of the captures, and are kept.
PLANNED = [
    (
        "hgx-h100-80gb-eight-v12.xml",
        {"model": QWEN.format("14B"), "gpus": 8},
        Expected("8 x H100 SXM5 80GB", "535.161.08", "cu124", "2.6.0", "0.8.5.post1", 8),
    ),
    (
        "rtx-pro-6000-max-q-v13.xml",
        {"model": QWEN.format("14B")},
        Expected("1 x RTX PRO 6000 Blackwell Max-Q", "590.44.01", "cu130", "2.13.0", "0.32.0", 1),
    ),
    (
        "rtx-4000-sff-ada-v13.xml",
        {"model": QWEN.format("7B")},
        Expected("1 x RTX 4000 SFF Ada", "595.84", "cu130", "2.13.0", "0.32.0", 1),
    ),
    (
        "geforce-rtx-2080-two-v13.xml",
        {"model": QWEN.format("3B")},
        Expected("2 x RTX 2080 (rev. A)", "590.44.01", "cu130", "2.13.0", "0.32.0", 2),
    ),
    (
        "geforce-rtx-3080-v12.xml",
        {"model": QWEN.format("3B")},
        Expected("1 x RTX 3080 (low hash rate)", "536.40", "cu128", "2.10.0", "0.19.1", 1),
    ),
]
# Capture -> why nothing is planned on that machine as it stands, and may not be changed.
REFUSED = {
    "a10g-v11.xml": "CUDA 12.1 needs driver 525.60.13 or newer, this one is 515.105.01",
    "tesla-t4-v11.xml": "CUDA 12.1 needs driver 525.60.13 or newer, this one is 515.105.01",
    "tesla-v100s-32gb-v11.xml": "Install driver branch 580 with proprietary modules on the computer that",
    "quadro-p2000-v12.xml": "Quadro P2000 is of compute capability 6.1, the wheel holds code for 7.0",
    "a100-sxm4-40gb-mig-v11.xml": "GPU NVIDIA A100-SXM4-40GB: is cut into MIG instances",
    "a100-sxm4-80gb-mig-v12.xml": "GPU NVIDIA A100-SXM4-80GB: is cut into MIG instances",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = own_lab(tmp_path_factory.mktemp("lab"), second_octet=140)
    try:
        machines.up(1, hubs=False, lab=lab)
        yield lab
    finally:
        machines.clean(lab)


def probed(lab: Lab) -> Probe:
    """What the probe makes of the host."""
    return probe.parse(machines.run(HOST, facts.script(PACKAGES), timeout_seconds=60, lab=lab).stdout)


def planned(lab: Lab, machine: Pretended, service: dict[str, Any], managed: bool = False) -> HostPlan:
    """The plan of the host while it shows this machine."""
    gpus.put_on(HOST, machine, lab=lab)
    data = {"serve": {"chat": service}, "driver": {"managed": managed}}
    return plan_host(HOST, settings.read([data]), probed(lab))


def test_a_pretended_gpu_is_seen_on_the_bus_in_the_kernel_and_by_its_driver(lab: Lab) -> None:
    gpus.put_on(HOST, gpus.of_capture("tesla-t4-v11.xml"), lab=lab)
    seen = probed(lab)
    assert [(gpu.device_id, gpu.class_code) for gpu in seen.gpus] == [("0x1eb8", "0x030200")]
    assert (seen.driver, set(seen.modules)) == (
        "515.105.01",
        {"nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm"},
    )
    assert seen.smi == (gpus.pretended.CAPTURES / "tesla-t4-v11.xml").read_text().rstrip("\n")


def test_a_reboot_keeps_the_gpus_or_brings_what_comes_after_it(lab: Lab) -> None:
    card = gpus.of_capture("tesla-t4-v11.xml")
    gpus.put_on(HOST, card.with_nouveau(), after_reboot=card, lab=lab)
    before = probed(lab)
    assert (before.driver, before.modules, before.smi) == (None, ("nouveau",), "")
    for _ in range(2):
        machines.power_off(HOST, lab=lab)
        machines.boot(HOST, lab=lab)
        after = probed(lab)
        assert after.boot_id != before.boot_id
        assert (after.driver, after.gpus) == ("515.105.01", before.gpus)


def test_a_host_whose_gpus_are_taken_off_is_as_it_was(lab: Lab) -> None:
    gpus.take_off(HOST, lab=lab)
    before = probed(lab)
    with gpus.pretending(HOST, gpus.of_capture("tesla-t4-v11.xml").mismatched("510.47.03"), lab=lab):
        assert probed(lab).driver == "510.47.03"
    left = machines.run(
        HOST, "mount | grep pretended; ls -d /sys/module /usr/local/bin/* 2>/dev/null", lab=lab
    ).stdout
    after = probed(lab)
    assert (after.pci, after.driver, after.modules, after.smi, left) == (before.pci, None, (), "", "")


def test_nvidia_smi_answers_the_questions_that_people_ask(lab: Lab) -> None:
    gpus.put_on(HOST, gpus.of_capture("tesla-t4-v11.xml"), lab=lab)

    def said(arguments: str) -> str:
        done = machines.run(HOST, f"nvidia-smi {arguments}; echo $?", lab=lab)
        return done.stdout

    assert said("-L") == "GPU 0: Tesla T4 (UUID: GPU-d37e67a5-91dd-3774-a5cb-99096249601a)\n0\n"
    query = "--query-gpu=index,driver_version,memory.total --format=csv,noheader"
    assert said(query) == "0, 515.105.01, 15360 MiB\n0\n"
    assert said(f"{query},nounits") == "0, 515.105.01, 15360\n0\n"
    assert said("-pm 1").startswith("Enabled persistence mode for GPU 00000000:00:1E.0.")
    assert "<persistence_mode>Enabled<" in said("-q -x")
    gpus.put_on(HOST, gpus.of_capture("tesla-t4-v11.xml").not_loaded(), lab=lab)
    assert said("-L").endswith("running.\n9\n")


@pytest.mark.parametrize(("name", "service", "expected"), PLANNED, ids=[row[0] for row in PLANNED])
def test_a_machine_gets_the_stack_of_its_gpus(
    lab: Lab, name: str, service: dict[str, Any], expected: Expected
) -> None:
    plan = planned(lab, gpus.of_capture(name), service)
    assert plan.environment and plan.accelerator == "cuda"
    found = Expected(
        plan.hardware,
        plan.driver.summary.removesuffix(" (kept)"),
        next(reason.value for reason in plan.why if reason.subject == "cuda"),
        plan.environment.pins["torch"]["torch"],
        plan.environment.pins["vllm"]["vllm"],
        plan.services[0].flags["tensor-parallel-size"],
    )
    assert found == expected


@pytest.mark.parametrize("name", REFUSED)
def test_a_machine_that_cannot_serve_as_it_stands_is_told_why(lab: Lab, name: str) -> None:
    with pytest.raises(PlanError) as refusal:
        planned(lab, gpus.of_capture(name), {"model": QWEN.format("0.5B")})
    assert REFUSED[name] in " ".join(refusal.value.sentences)


HGX = gpus.of_capture("hgx-h100-80gb-eight-v12.xml").with_bridges("0x22a3", 4)
ADA = gpus.of_capture("rtx-4000-sff-ada-v13.xml")
# The lab's machines are containers, and say so unless they are told otherwise.
BARE_METAL = {"systemd_detect_virt": "echo none; exit 1"}
SECURE = {"mokutil": "case $1 in --sb-state) echo SecureBoot enabled ;; *) echo is not enrolled ;; esac"}
UNSUITED = [
    (HGX.without_driver(), False, "an NVIDIA driver: the host has none, and may not be given one"),
    (HGX.not_loaded(), False, "an NVIDIA driver: the host has none, and may not be given one"),
    (HGX.without_driver(), True, "this is a container (systemd-nspawn) without a kernel of its own"),
    (
        HGX.without_driver().with_programs(**BARE_METAL, **SECURE),
        True,
        "mokutil --import /var/lib/dkms/mok.pub",
    ),
]


@pytest.mark.parametrize(
    ("machine", "managed", "why"), UNSUITED, ids=["kept", "unloaded", "container", "key"]
)
def test_a_driver_that_cannot_be_put_to_work_is_refused(
    lab: Lab, machine: Pretended, managed: bool, why: str
) -> None:
    with pytest.raises(PlanError) as refusal:
        planned(lab, machine, {"model": QWEN.format("7B")}, managed=managed)
    assert why in " ".join(refusal.value.sentences)


@pytest.mark.parametrize(
    ("machine", "action", "start", "because"),
    [
        (HGX, "keep", "", ""),
        (HGX.without_driver(), "install", "load", "no module is loaded"),
        (HGX.with_nouveau(), "install", "reboot", "nouveau holds the card"),
        (ADA.not_loaded(), "install", "load", "no module is loaded"),
    ],
    ids=["kept", "bare", "nouveau", "unloaded"],
)
def test_what_is_done_about_a_driver_follows_from_what_holds_the_cards(
    lab: Lab, machine: Pretended, action: str, start: str, because: str
) -> None:
    driver = planned(
        lab, machine.with_programs(**BARE_METAL), {"model": QWEN.format("7B")}, managed=True
    ).driver
    assert (driver.action, driver.work.start, driver.work.because) == (action, start, because)
    if action == "install":
        switched = len(machine.functions) > 1
        assert ("nvidia-fabricmanager" in driver.work.install) is switched


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (
            ADA.mismatched("580.95.05"),
            "nvidia-smi fails: Failed to initialize NVML: Driver/library version mismatch",
        ),
        (HGX.fallen_off_the_bus("0000:3b:00.0"), "GPU 0000:3b:00.0: nvidia-smi does not show it"),
    ],
    ids=["mismatch", "fallen"],
)
def test_what_ails_the_gpus_is_said_before_anything_is_done(lab: Lab, machine: Pretended, says: str) -> None:
    plan = planned(lab, machine, {"model": QWEN.format("7B")}, managed=False)
    assert says in " ".join(plan.warnings)


def site(lab: Lab, folder: Path, service: dict[str, Any]) -> Path:
    """An inventory with this host and one service; its driver may not be changed."""
    data = {
        "ssh_hostname": lab.host(HOST).address,
        "ssh_user": "root",
        "ssh_key": str(lab.login_key),
        "ssh_known_hosts_file": str(lab.known_hosts),
        "driver": {"managed": False},
        "serve": {"chat": service},
    }
    inventory = folder / "site.py"
    inventory.write_text(f"site = {[(HOST, data)]!r}\n")
    return inventory


def said_by(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=200,
        check=False,
    )


def test_a_dry_run_shows_what_a_gpu_host_would_get_and_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    gpus.put_on(HOST, HGX, lab=lab)
    inventory = site(lab, tmp_path, {"model": QWEN.format("14B"), "gpus": 8})
    done = said_by(PYINFRA, "-y", "--dry", inventory, "deploy.py")
    assert done.returncode == 0, done.stderr[-3000:]
    # a table folds its words
    said = " ".join(re.sub(r"[│┃]", " ", done.stderr).split())
    for words in ("8 x H100", "535.161.08 (kept)", "tensor-parallel-size=8"):
        assert words in said
    assert machines.run(HOST, "ls -d /etc/bringup /opt/bringup", lab=lab).stdout == ""


def test_the_checks_pass_a_machine_in_order_and_fail_one_that_is_not(lab: Lab, tmp_path: Path) -> None:
    inventory = site(lab, tmp_path, {"model": QWEN.format("7B")})
    check = (
        REPOSITORY / ".venv/bin/pytest",
        "tests/verify",
        "-rs",
        "-k",
        "test_gpu",
        "--inventory",
        inventory,
    )
    gpus.put_on(HOST, HGX, lab=lab)
    done = said_by(*check)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "this driver is kept as it is" in done.stdout and "driver 535.161.08, 8 GPUs" in done.stdout
    gpus.put_on(HOST, ADA.mismatched("580.95.05"), lab=lab)
    done = said_by(*check)
    assert done.returncode == 1
    assert "nvidia-smi fails: Failed to initialize NVML: Driver/library version mismatch" in done.stdout
