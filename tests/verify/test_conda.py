"""The conda environment: listed, exactly as locked, with the planned Python."""

import packaging.requirements
import pytest
from packaging.version import Version

from plan.host import EnvironmentPlan
from plan.probe import InstalledEnvironment, Probe, canonical_name, same_version
from tests.verify.evidence import Evidence


def test_conda_lists_the_environment(
    environment: EnvironmentPlan, installed: InstalledEnvironment, evidence: Evidence
) -> None:
    assert installed.conda
    listed = evidence.conda_environments
    said = " ".join(evidence.lines("conda_environments"))[-300:] or "nothing"
    assert environment.prefix in listed, f"`conda env list` names {listed or said}"


def test_environment_has_exactly_the_locked_conda_packages(
    environment: EnvironmentPlan, probe: Probe
) -> None:
    there = probe.environments.get(environment.prefix)
    assert there, f"there is no whole environment at {environment.prefix}"
    lacking, extra = environment.records - there.conda, there.conda - environment.records
    assert not lacking, f"missing: {', '.join(sorted(lacking))}"
    assert not extra, f"not in the lock: {', '.join(sorted(extra))}"


def test_python_is_the_planned_one(
    environment: EnvironmentPlan, installed: InstalledEnvironment, evidence: Evidence
) -> None:
    assert installed.conda
    found = evidence.imports.get("python", "none that runs")
    assert found.rpartition(".")[0] == environment.python, (
        f"Python is {found}, planned is {environment.python}"
    )


def test_uv_is_the_pinned_one(environment: EnvironmentPlan, installed: InstalledEnvironment) -> None:
    found, planned = installed.distributions.get("uv"), environment.uv.version
    assert found == planned, f"uv is {found}, planned is {planned}"


def test_every_package_below_the_pins_is_installed_as_locked(
    environment: EnvironmentPlan, installed: InstalledEnvironment, evidence: Evidence
) -> None:
    if not evidence.lock:
        pytest.fail(f"there is no lock at {environment.lock_file}", pytrace=False)
    wrong = []
    pinned = {canonical_name(name.partition("[")[0]) for part in environment.pins.values() for name in part}
    for line in evidence.lock:
        wanted = packaging.requirements.Requirement(line)
        if canonical_name(wanted.name) in pinned:
            continue  # each of these has a check of its own
        found = installed.distributions.get(canonical_name(wanted.name))
        if found is None or not wanted.specifier.contains(Version(found), prereleases=True):
            wrong.append(f"{line} (is {found})")
    assert not wrong, f"not as locked: {', '.join(wrong)}"


def test_pinned_package_has_its_version(
    pin: tuple[str, str], environment: EnvironmentPlan, installed: InstalledEnvironment
) -> None:
    name, version = pin
    found = installed.distributions.get(canonical_name(name.partition("[")[0]))
    assert same_version(found, version), f"{name} is {found}, planned in {environment.name} is {version}"
