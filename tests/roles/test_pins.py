"""Which commit a revision is, where nobody can be asked."""

from tests import probes
from tests.roles.fleet import FakeHost, deploy

BARE = probes.answer(probes.BARE)
NOBODY = "http://127.0.0.1:9"


def test_a_dry_run_shows_the_plan_where_no_hub_answers_and_a_real_one_is_refused() -> None:
    wanted = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}, "sources": {"models": NOBODY}}
    dry = deploy(FakeHost("a", BARE), data=wanted, options=("-y", "--dry"))
    assert dry.code == 0, dry.output
    assert "which commit it is stays open" in dry.output
    assert "Qwen/Qwen2.5-0.5B-Instruct @ master" in dry.output
    real = deploy(FakeHost("a", BARE), data=wanted)
    assert real.code == 1
    assert "refused: @fake/a: model Qwen/Qwen2.5-0.5B-Instruct: revision master is nowhere" in real.output
