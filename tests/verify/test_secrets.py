"""Files with secrets are closed, and the API key is nowhere on the host; it is compared, never printed."""

import pytest

from plan.host import HostPlan, ServicePlan
from roles.gateway.deploy import CONFIGURATION
from tests.verify.evidence import Evidence


@pytest.fixture
def searched(guarded_services: list[ServicePlan], evidence: Evidence) -> Evidence:
    """The evidence, where the key of the host could be looked for."""
    assert guarded_services
    assert "key_searched" in evidence.blocks, "the key was not looked for: the settings have none"
    return evidence


def test_files_with_secrets_are_closed_to_others(plan: HostPlan, evidence: Evidence) -> None:
    assert plan.user
    opened = evidence.lines("open_secrets")
    assert not opened, (
        f"{'; '.join(opened)}: others may read or change it. Deploy again, and renew the secret."
    )


def test_what_the_front_compares_with_is_unreadable_for_others(searched: Evidence) -> None:
    readers = searched.lines("front_readers")
    assert not readers, f"{CONFIGURATION} can be read by {', '.join(readers)}"


@pytest.mark.parametrize("where", ["command_lines", "environments"])
def test_key_is_in_no_process(searched: Evidence, where: str) -> None:
    shown = [f"{process.name} (pid {process.pid})" for process in searched.holders_of_key(where)]
    assert not shown, f"the key is in the {where} of {', '.join(shown)}"


def test_key_is_in_no_journal(searched: Evidence) -> None:
    lines = searched.count_of_key("journal")
    assert not lines, f"the key stands in {lines} lines of the journal: rotate it, then choose a new key"


def test_key_is_in_no_unit_property(searched: Evidence) -> None:
    lines = searched.count_of_key("unit_properties")
    assert not lines, f"every user can read the key with `systemctl show`: it is in {lines} properties"


def test_key_stands_in_no_file(searched: Evidence) -> None:
    found = searched.lines("key_in_files")
    assert not found, f"the key stands in {', '.join(found)}"
