"""What of a service by vLLM lies beside its unit: chat templates, adapters; against fake hosts."""

from pathlib import Path
from typing import Any

import pytest

from plan import settings
from plan.decide import plan_host
from plan.host import HostPlan
from plan.probe import parse
from tests import probes
from tests.roles import commits
from tests.roles.fleet import FakeHost, Run, deploy
from tests.roles.served import served
from tests.roles.systemd_words import settings as unit_settings
from tests.roles.systemd_words import words

BARE = probes.answer(probes.BARE)
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
UNIT = "/etc/systemd/system/vllm-chat.service"
ADAPTER = {"lora": {"sql": "org/sql-lora@v1"}}


def with_template(folder: Path, text: str) -> dict[str, Any]:
    path = folder / "own.jinja"
    path.write_text(text)
    return {"chat_template": str(path)}


def wish(**service: Any) -> dict[str, Any]:
    return {"serve": {"chat": {"model": MODEL, **service}}}


def planned(data: dict[str, Any], text: str = BARE) -> HostPlan:
    wanted = settings.read([data])
    return plan_host("host", wanted, parse(text), pins=commits.pins(wanted))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A bare host that gets both, then a second run: with the same, with none, the model's, another text."""
    folder = tmp_path_factory.mktemp("operator")
    both = wish(**ADAPTER, **with_template(folder, "{{ messages }}"))
    first = deploy(FakeHost("a", BARE, both))
    there = served(BARE, first.execs["a"], planned(both))
    again = deploy(
        FakeHost("a", there, both),
        FakeHost("none", there, wish(**ADAPTER)),
        FakeHost("brought", there, wish(**ADAPTER, chat_template="model:tool.jinja")),
    )
    with_template(folder, "{{ messages }}!")
    return {"first": first, "again": again, "other": deploy(FakeHost("a", there, both))}


def template(run: Run, host: str = "a") -> str:
    (path,) = [path for path in run.files(host) if "chat-templates" in path]
    return path


def argument(run: Run, flag: str) -> str:
    """What stands behind a flag in the unit's command."""
    (command,) = [value for _, name, value in unit_settings(run.files("a")[UNIT]) if name == "ExecStart"]
    found = words(command)
    return found[found.index(flag) + 1]


def test_a_template_is_there_before_the_unit_that_names_it(runs: dict[str, Run]) -> None:
    kinds = runs["first"].kinds("a")
    path = template(runs["first"])
    assert kinds.index(f"write {path}") < kinds.index(f"write {UNIT}")
    assert runs["first"].files("a")[path] == "{{ messages }}"
    assert argument(runs["first"], "--chat-template") == path


def test_an_adapter_is_downloaded_and_named_in_the_unit(runs: dict[str, Run]) -> None:
    assert len([kind for kind in runs["first"].kinds("a") if kind.startswith("join model-")]) == 2
    (adapter,) = [model for model in planned(wish(**ADAPTER)).models if model.model == "org/sql-lora"]
    assert argument(runs["first"], "--lora-modules") == f"sql={adapter.directory}"


def test_a_second_run_costs_one_round_trip(runs: dict[str, Run]) -> None:
    assert runs["again"].kinds("a") == ["probe"]


def test_another_text_restarts_the_service_and_the_old_file_goes_after_that(runs: dict[str, Run]) -> None:
    old, new = template(runs["first"]), template(runs["other"])
    assert runs["other"].kinds("a")[1:6] == [
        f"write {new}",
        f"write {UNIT}",
        "service restart",
        "look",
        f"remove {old}",
    ]


def test_a_template_that_is_not_wanted_any_more_goes(runs: dict[str, Run]) -> None:
    assert runs["again"].kinds("none")[1:5] == [
        f"write {UNIT}",
        "service restart",
        "look",
        f"remove {template(runs['first'])}",
    ]


def test_one_that_the_model_should_bring_along_is_looked_at_before_the_unit_is_changed(
    runs: dict[str, Run],
) -> None:
    (trip,) = [trip for trip in runs["again"].execs["brought"] if UNIT in trip.files()]
    checked, moved = trip.command.index("tool.jinja ]"), trip.command.index(f"mv -fT -- {UNIT}.new")
    assert checked < moved
    assert "is missing, empty, or no Jinja: correct it" in trip.command
