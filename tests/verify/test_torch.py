"""torch and what stands beside it: imported, of the planned version, computing."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from packaging.version import Version

from ops.files import File
from ops.render import render
from plan.figures import parse as figures_of
from plan.host import HostPlan
from plan.probe import InstalledEnvironment, Probe
from roles.torch.deploy import CHECK
from tests.verify.evidence import Evidence
from tests.verify.files import difference


@pytest.fixture
def imports(installed: InstalledEnvironment, evidence: Evidence) -> dict[str, str]:
    """Module -> what its import gave."""
    if not evidence.imports:
        pytest.skip("the environment's Python does not run")
    return evidence.imports


@pytest.fixture
def figures(installed: InstalledEnvironment, evidence: Evidence) -> dict[str, Any]:
    """What the torch check reported; its own failure is another check's subject."""
    status, words = evidence.torch
    if status:
        pytest.skip("the torch check on the host failed")
    return dict(json.loads(words.splitlines()[-1]))


def test_package_imports_and_says_its_planned_version(
    module: tuple[str, str], imports: dict[str, str], installed: InstalledEnvironment
) -> None:
    name, version = module
    if (record := installed.distributions.get(name)) != version:
        pytest.skip(f"{name} is installed as {record}, which is another check's subject")
    assert imports.get(name) == version, f"import {name}: {imports.get(name)}, planned is {version}"


def test_check_program_is_ours(torch: str, probe: Probe) -> None:
    wrong = difference(File(CHECK, render("torch/check_torch.py"), mode="755"), probe.paths.get(CHECK))
    assert not wrong, f"torch {torch} is checked by another program: {wrong}"


def test_torch_multiplies_matrices_rightly(
    torch: str, installed: InstalledEnvironment, evidence: Evidence, plan: HostPlan, probe: Probe
) -> None:
    status, words = evidence.torch
    if status and plan.accelerator == "cuda" and probe.driver is None:
        pytest.skip("no module of the driver is loaded, which is another check's subject")
    assert status == 0, f"torch {torch} among {len(installed.distributions)} packages: {words[-600:]}"


def test_torch_has_the_planned_cuda(torch: str, figures: dict[str, Any]) -> None:
    """The local part of a torch version is its CUDA tag: 2.9.0+cu128 was built with CUDA 12.8."""
    tag = Version(torch).local
    built = f"cu{figures['cuda'].replace('.', '')}" if figures["cuda"] else "cpu"
    assert built == (tag or built), f"torch was built with {built}, planned is {tag}"


def test_torch_computed_on_every_gpu(
    torch: str, plan: HostPlan, probe: Probe, figures: dict[str, Any], tell: Callable[[str], None]
) -> None:
    devices = [device["device"] for device in figures["devices"]]
    gpus = len(probe.gpus) if plan.accelerator == "cuda" else 0
    assert devices == ([f"cuda:{index}" for index in range(gpus)] or ["cpu"])
    for device in figures["devices"]:
        memory = f", {device['memory_gb_s']:.0f} GB/s of memory" if "memory_gb_s" in device else ""
        speed = f"{device['tflops']:.2f} TFLOP/s in {device['dtype']}{memory}"
        tell(f"{device['device']} ({device['name']}): {speed} with torch {torch}")


def test_several_gpus_sum_rightly_together(
    torch: str, figures: dict[str, Any], tell: Callable[[str], None]
) -> None:
    several = len(figures["devices"]) > 1
    if not several:
        pytest.skip(f"torch {torch} computes on one device")
    summed = figures["all_reduce"]
    assert summed["ranks"] == len(figures["devices"])
    tell(f"all-reduce over {summed['ranks']} GPUs: {summed['gb_s']:.0f} GB/s")


def test_every_gpu_reached_its_floor_when_it_was_checked(torch: str, plan: HostPlan, probe: Probe) -> None:
    """As recorded by the deploy: while services use a GPU its figures say nothing of it."""
    assert plan.environment
    recorded = figures_of(probe.checks.get(plan.environment.checked_file, ""))
    assert recorded, f"no figures of torch {torch} are recorded"
    assert not recorded.warnings, " ".join(recorded.warnings)
