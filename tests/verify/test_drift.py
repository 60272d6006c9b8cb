"""Who has moved since the last whole deploy: what no other check has named, at the end of a host's proof."""

import pytest

from plan.drift import Difference
from tests.verify.cases import Case
from tests.verify.evidence import Evidence


@pytest.fixture
def untold(case: Case, evidence: Evidence) -> list[Difference]:
    """The differences that no failed check is about."""
    assert evidence.blocks
    subject = case.subject
    return [difference for difference in subject.differences if difference.about not in subject.told]


def test_host_is_as_the_deploy_left_it(untold: list[Difference]) -> None:
    _fail([difference for difference in untold if difference.mover == "host"])


def test_settings_and_program_are_those_of_the_deploy(untold: list[Difference]) -> None:
    _fail([difference for difference in untold if difference.mover != "host"])


def _fail(differences: list[Difference]) -> None:
    if differences:
        told = (f"{difference.sentence}\n{difference.diff}".strip() for difference in differences)
        pytest.fail("\n\n".join(told), pytrace=False)
