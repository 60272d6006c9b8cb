"""Models that are in no table: their facts bear on the plan, and a host keeps them from run to run."""

import dataclasses

import pytest

from plan import model_facts, models, settings
from plan.decide import plan_host
from plan.errors import PlanError
from plan.probe import parse
from tests import probes

BARE = parse(probes.answer(probes.BARE))
WANTED = settings.read([{"serve": {"chat": {"model": "acme/own-7b", "revision": "v2"}}}])
KEY = "acme/own-7b@v2"


def own(**changes: object) -> models.ModelFacts:
    """A model like a known one, under a name that no table has."""
    known = models.lookup("Qwen/Qwen2.5-7B-Instruct")
    assert known
    return dataclasses.replace(known, id="acme/own-7b", **changes)  # type: ignore[arg-type]


def test_are_kept_on_the_host_and_read_back() -> None:
    text = model_facts.text(WANTED, {KEY: own()})
    assert text
    assert model_facts.kept(dataclasses.replace(BARE, model_facts=text)) == {KEY: own()}
    unread = model_facts.text(WANTED, {KEY: None})
    assert unread
    assert model_facts.kept(dataclasses.replace(BARE, model_facts=unread)) == {KEY: None}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a/b@master": {"id": 7}}'])
def test_a_file_that_cannot_be_understood_counts_as_none(text: str) -> None:
    assert model_facts.kept(dataclasses.replace(BARE, model_facts=text)) == {}


def test_no_file_is_kept_for_models_of_the_tables() -> None:
    known = settings.read([{"serve": {"chat": {"model": "Qwen/Qwen2.5-7B-Instruct"}}}])
    assert model_facts.text(known, {}) is None
    assert not list(model_facts.wanted(known))


def test_decide_whether_the_model_fits_and_its_context() -> None:
    roomy = dataclasses.replace(BARE, memory_gib=64.0)
    plan = plan_host("host", WANTED, roomy, {KEY: own(context=4096)})
    assert plan.services[0].flags["max-model-len"] == 4096
    with pytest.raises(PlanError, match=r"acme/own-7b takes .* GiB of weights"):
        plan_host("host", WANTED, dataclasses.replace(BARE, memory_gib=8.0), {KEY: own()})


def test_without_them_the_plan_says_that_memory_was_not_checked() -> None:
    plan = plan_host("host", WANTED, BARE)
    assert "acme/own-7b is in no table and its files were not read: its memory was not checked." in (
        plan.warnings
    )
