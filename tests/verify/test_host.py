"""The ground: reachable, planned, base packages, the service user, the directories."""

from collections.abc import Iterable

import pytest

from ops.files import Directory
from plan import leavings
from plan.host import HostPlan
from plan.probe import Probe, missing_packages
from tests.verify import health
from tests.verify.cases import Case
from tests.verify.evidence import Evidence
from tests.verify.files import difference
from tests.verify.fleet import Subject

# Members of these groups are root, or can become it.
PRIVILEGED_GROUPS = {"root", "sudo", "wheel", "adm", "docker", "lxd", "disk", "shadow"}


def test_host_is_reached_and_has_a_plan(subject: Subject) -> None:
    if subject.problem or subject.lost:
        pytest.fail(subject.problem or subject.lost, pytrace=False)


def test_base_packages_are_installed(plan: HostPlan, probe: Probe) -> None:
    lacking = missing_packages(plan.base_packages, probe.packages)
    assert not lacking, f"not installed: {', '.join(lacking)}"


@pytest.fixture
def service_user(plan: HostPlan) -> None:
    if not leavings.user_wanted(plan):
        pytest.skip("nothing here runs as the service user")


@pytest.mark.usefixtures("service_user")
def test_service_user_cannot_log_in(plan: HostPlan, evidence: Evidence) -> None:
    assert evidence.user, f"there is no user {plan.user}"
    shell = evidence.user[6]
    assert shell.endswith(("/nologin", "/false")), f"{plan.user} has the shell {shell}"
    password = "".join(evidence.lines("password"))
    assert password.startswith("L"), (
        f"the password of {plan.user} is not locked (passwd --status: {password})"
    )


@pytest.mark.usefixtures("service_user")
def test_service_user_is_unprivileged(plan: HostPlan, evidence: Evidence) -> None:
    assert evidence.user_id, f"{plan.user} is not there, or is root"
    privileged = PRIVILEGED_GROUPS & set(" ".join(evidence.lines("groups")).split())
    assert not privileged, f"{plan.user} is in {', '.join(sorted(privileged))}"


def test_directory_has_its_owner_and_mode(plan: HostPlan, directory: Directory, probe: Probe) -> None:
    if directory.owner.startswith(plan.user) and not leavings.user_wanted(plan):
        pytest.skip("nothing here runs as the service user")
    wrong = difference(directory, probe.paths.get(directory.path))
    assert not wrong, wrong


def test_nothing_is_left_of_what_shall_be_absent(plan: HostPlan, evidence: Evidence) -> None:
    left = evidence.lines("left")
    assert not left, f"still there: {', '.join(left)}"


def test_clock_is_right(plan: HostPlan, case: Case, evidence: Evidence) -> None:
    assert plan and evidence
    _none(health.clock(case.subject.ahead_seconds))


def test_disks_have_room(plan: HostPlan, probe: Probe) -> None:
    assert plan
    _none(health.disks(probe))


def test_certificates_are_valid(plan: HostPlan, evidence: Evidence) -> None:
    _none(health.certificates(plan.gateway, evidence))


def test_ports_are_those_of_the_plan(plan: HostPlan, case: Case, evidence: Evidence) -> None:
    # that these do not run is said with whom they cannot run for
    case.subject.told |= set(health.taken(plan, evidence))
    _none(health.strangers(plan, evidence))


def _none(sentences: Iterable[str]) -> None:
    found = list(sentences)
    if found:
        pytest.fail("\n\n".join(found), pytrace=False)
