"""Which commit a revision is, where nobody can be asked; and what a model needs beside it."""

from tests import probes
from tests.probes import with_block
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


def test_a_token_that_the_host_keeps_stays_when_a_front_is_served() -> None:
    """Both lie in /etc/bringup, and neither role knows the other's files."""
    wanted = {
        "serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct", "revision": "0" * 40}},
        "access": {"listen": "10.44.0.0/24", "api_key_env": "KEY"},
        "models": {"token_env": "TOKEN"},
    }
    secrets = {"KEY": "a-key-that-nobody-may-see-0123", "TOKEN": "a-token-that-nobody-may-see-0123"}
    first = deploy(FakeHost("a", BARE), data=wanted, **secrets)
    assert first.code == 0, first.output
    assert secrets["TOKEN"] in first.files("a")["/etc/bringup/credentials/models.env"]
    kept = with_block(
        BARE,
        "paths",
        "700 root:root d /etc/bringup/credentials",
        "600 root:root f /etc/bringup/credentials/models.env",
    )
    second = deploy(FakeHost("a", kept), data=wanted, **secrets)
    assert second.code == 0, second.output
    assert not [kind for kind in second.kinds("a") if kind.startswith("remove /etc/bringup/credentials")]
