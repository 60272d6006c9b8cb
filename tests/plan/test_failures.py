"""Each kind of failure is told by what the server really prints, and names what to change."""

import pytest

from plan import failures
from plan.sections import Service


@pytest.mark.parametrize("failure", failures.known(), ids=lambda failure: failure.sign[:40])
def test_a_line_as_printed_is_told_from_every_other(failure: failures.Failure) -> None:
    assert failures.explain(f"INFO starting\n{failure.example}\nINFO ending", "serve.chat") == (
        failure.says.format(serve="serve.chat")
    )
    assert failure.source


@pytest.mark.parametrize("failure", failures.known(), ids=lambda failure: failure.sign[:40])
def test_a_sentence_names_settings_that_there_are(failure: failures.Failure) -> None:
    for word in failure.says.replace(",", " ").replace(":", " ").split():
        if word.startswith("{serve}."):
            assert word.removeprefix("{serve}.").rstrip(".") in Service.model_fields


def test_what_is_not_known_is_not_guessed() -> None:
    assert failures.explain("KeyError: 'surprise'", "serve.chat") is None
