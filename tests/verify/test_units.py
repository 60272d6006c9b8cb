"""Every unit of ours is as confined as planned, whatever else on the host has a say in it."""

import pytest

from plan.hardening import Confined
from tests.verify.cases import Case
from tests.verify.evidence import Evidence


def test_unit_is_confined(confined: Confined, case: Case, evidence: Evidence) -> None:
    if any(difference.about == confined.file for difference in case.subject.differences):
        pytest.skip(f"{confined.file} is not as planned, which is another check's subject")
    exposure = evidence.exposure(confined.name)
    if exposure is None:
        pytest.skip(f"`systemd-analyze security {confined.name}` says nothing here")
    drop_ins = evidence.unit(confined.name).get("DropInPaths")
    cause = f": {drop_ins} changes it. Remove that." if drop_ins else ". Deploy again."
    assert exposure <= confined.most, (
        f"{confined.name} has an exposure of {exposure} (`systemd-analyze security`), "
        f"at most {confined.most} is planned{cause}"
    )
