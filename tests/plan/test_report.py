"""A report's data: counted, grouped, and read back as it was written."""

import json

import pytest

from plan.report import (
    Check,
    Figure,
    HostReport,
    Problem,
    Report,
    Row,
    Step,
    from_json,
    sentences,
)


def host(name: str, outcome: str, *problems: str) -> HostReport:
    return HostReport(name, outcome, problems=tuple(Problem(problem) for problem in problems))


def report(*hosts: HostReport) -> Report:
    return Report("deploy", "0.1.0", "2026-11-22T14:40:12+08:00", 61.5, "inventories/prod.py", hosts)


WHOLE = HostReport(
    "gpu-1",
    "failed",
    problems=(Problem("vLLM does not serve.", "last words", "vllm"),),
    gpus=("L40S", "L40S"),
    services=("qwen",),
    plan=(Row("torch", "2.13.0", "vLLM wants it"),),
    notes=("a warning",),
    steps=(Step("Install vLLM", 1.0, 2.5, "changed"), Step("Serve the model", 3.5, 9.0, "failed")),
    checks=(Check("gpu-1 is reached", "passed"), Check("gpu-1 serves", "failed", "it does not")),
    figures=(Figure("qwen", "memory of its GPUs", "GiB", 10.5, 10.1),),
)


def test_a_report_is_read_back_as_it_was_written() -> None:
    written = report(WHOLE, host("gpu-2", "unchanged"))
    assert from_json(written.to_json()) == written


def test_the_json_counts_hosts_by_outcome() -> None:
    counted = json.loads(report(host("a", "changed"), host("b", "failed"), host("c", "changed")).to_json())
    assert counted["counts"] == {"failed": 1, "changed": 2}
    assert counted["format"] == 1


def test_failed_hosts_come_first_and_others_keep_their_order() -> None:
    made = report(host("a", "unchanged"), host("b", "changed"), host("c", "failed"), host("d", "changed"))
    assert [found.name for found in made.worst_first] == ["c", "b", "d", "a"]


def test_one_trouble_of_many_hosts_is_told_once() -> None:
    made = report(
        host("a", "refused", "a: disk: /opt is full."),
        host("b", "refused", "b: disk: /opt is full.", "b: port: 8000 is taken."),
        host("c", "failed", "disk: /opt is full."),
    )
    told = [(problem.sentence, sorted(names)) for problem, names in made.troubles]
    assert told == [("disk: /opt is full.", ["a", "b", "c"]), ("port: 8000 is taken.", ["b"])]


def test_gpus_are_counted_over_the_fleet() -> None:
    assert report(WHOLE, WHOLE).gpus == {"L40S": 4}


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("it broke.", Problem("it broke.")),
        ("it broke.\n    why\n", Problem("it broke.", "    why")),
    ],
)
def test_what_follows_the_first_line_of_a_message_is_its_detail(message: str, problem: Problem) -> None:
    assert sentences([message]) == (problem,)


def test_steps_that_found_nothing_to_do_are_not_counted() -> None:
    idle = HostReport("a", "unchanged", steps=(Step("Install vLLM", 0.0, 1.0, "unchanged"), *WHOLE.steps))
    assert (idle.changes, idle.busy_seconds) == (1, 11.5)
    assert [step.name for step in idle.eventful] == ["Install vLLM", "Serve the model"]
