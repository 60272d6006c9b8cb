"""The torch role against fake hosts: what the check is given, when it is made again, what it warns of."""

import json
import shlex

import pytest

from plan.host import HostPlan
from tests.probes import with_block
from tests.roles.fleet import Answer, FakeHost, Run, deploy
from tests.roles.served import driver, figures, served
from tests.roles.test_deploy import GPU, ONE, plan

SLOW = "cuda:0 (NVIDIA H100 80GB HBM3) reaches 120 TFLOP/s in bfloat16, expected are 297 or more. Look at it."


def planned() -> HostPlan:
    return plan(GPU, ONE)


@pytest.fixture(scope="module")
def first() -> Run:
    """A first run whose check finds a slow GPU."""
    slow = Answer(r"-p SubState bringup-check-torch.*echo \$state", f"exited\nwarning: {SLOW}")
    return deploy(FakeHost("gpu", GPU, ONE, answers=[slow]))


def converged(first: Run, checks: str) -> str:
    """The host after that run, with these figures on it."""
    made = planned()
    assert made.environment
    text = served(GPU, first.execs["gpu"], made)
    return with_block(text, "checks", f"{made.environment.checked_file} {checks}")


def again(text: str, *options: str) -> Run:
    return deploy(FakeHost("gpu", text, ONE), options=options or ("-y",))


def test_the_check_is_told_what_every_gpu_should_reach(first: Run) -> None:
    (start,) = (trip for trip in first.execs["gpu"] if "--unit=bringup-check-torch" in trip.command)
    script = start.script()
    call = shlex.split(script[script.index("setpriv") : script.index(")\n")])
    version, accelerator, floors = call[-3:]
    assert (version.split("+")[0].count("."), accelerator) == (2, "cuda")
    # 30 % of 989 TFLOP/s, half of 3350 GB/s, 30 % of 450 GB/s
    assert json.loads(floors) == [{"tflops": 296.7, "memory_gb_s": 1675, "link_gb_s": 135}]


def test_a_gpu_below_its_floor_is_a_warning_of_the_run_that_measured_it(first: Run) -> None:
    assert first.code == 0
    assert f"proving that torch computes: warning: {SLOW}" in first.output


def test_a_recorded_warning_is_shown_by_every_later_run_without_a_second_check(first: Run) -> None:
    run = again(converged(first, figures(planned(), driver(GPU), warnings=[SLOW])), "--dry")
    assert run.kinds("gpu") == ["probe"]
    assert "120 TFLOP/s in bfloat16" in run.output


@pytest.mark.parametrize("changed", ["driver", "gpus", "garbage"])
def test_another_driver_or_another_gpu_is_proved_again(first: Run, changed: str) -> None:
    made = planned()
    recorded = {
        "driver": figures(made, "570.86.15"),
        "gpus": figures(made, driver(GPU), devices=[]),
        "garbage": "{",
    }[changed]
    assert again(converged(first, recorded)).kinds("gpu") == [
        "probe",
        "start check-torch",
        "join check-torch",
    ]
