"""The API key: where it shall be, and nowhere else. It is never printed: hashes and counts are compared."""

import pytest

from ops.files import Directory, File
from plan.host import ServicePlan
from plan.probe import Probe
from roles.vllm.deploy import CREDENTIALS
from tests.verify.evidence import KEY_FILE, Evidence
from tests.verify.files import difference
from tests.verify.fleet import Planned


@pytest.fixture
def searched(guarded_services: list[ServicePlan], evidence: Evidence) -> Evidence:
    """The evidence, where the key of the host could be looked for."""
    assert guarded_services
    if "key_searched" not in evidence.blocks:
        pytest.skip(f"{KEY_FILE} holds no key")
    return evidence


def test_key_lies_in_root_s_directory(guarded_services: list[ServicePlan], probe: Probe) -> None:
    assert guarded_services
    wrong = difference(Directory(CREDENTIALS, mode="700"), probe.paths.get(CREDENTIALS))
    assert not wrong, wrong


def test_key_is_that_of_the_settings_for_root_s_eyes(
    guarded_services: list[ServicePlan], planned: Planned, probe: Probe
) -> None:
    assert planned.key, f"{guarded_services[0].unit} needs a key, and the settings have none"
    text = f"VLLM_API_KEY={planned.key.get_secret_value()}\n"
    wrong = difference(File(KEY_FILE, text, mode="600"), probe.paths.get(KEY_FILE))
    del text
    assert not wrong, wrong


def test_key_file_is_unreadable_for_others(searched: Evidence) -> None:
    readers = searched.lines("key_readers")
    assert not readers, f"{KEY_FILE} can be read by {', '.join(readers)}"


def test_key_is_in_no_command_line(searched: Evidence) -> None:
    shown = [f"{process.name} (pid {process.pid})" for process in searched.holders_of_key("command_lines")]
    assert not shown, f"every user can read the key in the command line of {', '.join(shown)}"


def test_key_is_in_the_environment_of_its_services_alone(
    guarded_services: list[ServicePlan], searched: Evidence
) -> None:
    theirs = {process.pid for service in guarded_services for process in searched.processes(service.unit)}
    others = [
        f"{process.name} (pid {process.pid})"
        for process in searched.holders_of_key("environments")
        if process.pid not in theirs
    ]
    assert not others, f"the key is in the environment of {', '.join(others)} too"


def test_key_is_in_no_journal(searched: Evidence) -> None:
    lines = searched.count_of_key("journal")
    assert not lines, f"the key stands in {lines} lines of the journal: rotate it, then choose a new key"


def test_key_is_in_no_unit_property(searched: Evidence) -> None:
    lines = searched.count_of_key("unit_properties")
    assert not lines, f"every user can read the key with `systemctl show`: it is in {lines} properties"


def test_key_stands_in_its_file_alone(searched: Evidence) -> None:
    found = searched.lines("key_in_files")
    assert found == [KEY_FILE], f"the key stands in {', '.join(found) or 'no file'}"
