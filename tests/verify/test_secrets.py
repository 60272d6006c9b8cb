"""The API key: where it shall be, and nowhere else. It is never printed: hashes and counts are compared."""

import pytest

from ops.files import Directory, File
from plan.host import HostPlan, ServicePlan
from plan.probe import Probe
from roles.vllm.deploy import CREDENTIALS
from tests.verify.evidence import KEY_FILE, Evidence
from tests.verify.fleet import Planned


@pytest.fixture
def searched(guarded_service: ServicePlan, evidence: Evidence) -> Evidence:
    """The evidence, when the host's key could be looked for."""
    if "key_searched" not in evidence.blocks:
        pytest.skip(f"{KEY_FILE} holds no key")
    return evidence


def test_key_directory_and_file_are_root_s_alone(guarded_service: ServicePlan, probe: Probe) -> None:
    for wanted in (Directory(CREDENTIALS, mode="700"), File(KEY_FILE, "", mode="600")):
        there = probe.paths.get(wanted.path)
        assert there, f"there is no {wanted.path}, and {guarded_service.unit} reads its key from there"
        assert (there.mode, there.owner) == (wanted.mode, wanted.owner), (
            f"{wanted.path} is {there.owner} {there.mode}"
        )


def test_key_is_the_one_of_the_settings(guarded_service: ServicePlan, planned: Planned, probe: Probe) -> None:
    assert planned.key, f"{guarded_service.unit} needs a key, and the settings have none"
    wanted = File(KEY_FILE, f"VLLM_API_KEY={planned.key.get_secret_value()}\n", mode="600")
    same = not wanted.differs(probe.paths.get(KEY_FILE))
    assert same, f"{KEY_FILE} does not hold the settings' key: deploy again"


def test_key_file_is_unreadable_for_others(searched: Evidence) -> None:
    readers = searched.lines("key_readers")
    assert not readers, f"{KEY_FILE} can be read by {', '.join(readers)}"


def test_key_is_in_no_command_line(searched: Evidence) -> None:
    shown = [f"{process.name} (pid {process.pid})" for process in searched.holders_of_key("command_lines")]
    assert not shown, f"every user can read the key in the command line of {', '.join(shown)}"


def test_key_is_in_the_environment_of_services_alone(
    plan: HostPlan, guarded_service: ServicePlan, searched: Evidence
) -> None:
    ours = {
        process.pid
        for service in plan.services
        if service.needs_key
        for process in searched.processes(service.unit)
    }
    others = [
        f"{process.name} (pid {process.pid})"
        for process in searched.holders_of_key("environments")
        if process.pid not in ours
    ]
    assert not others, f"beside {guarded_service.unit} the key is in the environment of {', '.join(others)}"


def test_key_is_in_no_journal(searched: Evidence) -> None:
    lines = searched.count_of_key("journal")
    assert not lines, f"the key stands in {lines} lines of the journal: rotate it, then choose a new key"


def test_key_is_in_no_unit_property(searched: Evidence) -> None:
    lines = searched.count_of_key("unit_properties")
    assert not lines, f"every user can read the key with `systemctl show`: it is in {lines} properties"


def test_key_lies_in_its_file_alone(searched: Evidence) -> None:
    assert searched.lines("key_in_files") == [KEY_FILE]
