"""What the torch check wrote down, read again."""

import json

import pytest

from plan import figures

TEXT = json.dumps(
    {
        "driver": "580.95.05",
        "devices": [{"device": "cuda:0", "name": "NVIDIA L4"}, {"device": "cuda:1", "name": "NVIDIA L4"}],
        "warnings": ["cuda:1 (NVIDIA L4) reaches 12 TFLOP/s"],
    }
)
CPU = json.dumps({"driver": None, "devices": [{"device": "cpu"}], "warnings": []})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"devices": 3}', '{"devices": [1]}'])
def test_what_is_no_result_of_a_check_counts_as_none(text: str) -> None:
    assert figures.parse(text) is None


def test_what_an_earlier_version_wrote_is_read() -> None:
    found = figures.parse(
        '{"cuda": null, "devices": [{"device": "cpu", "gflops": 40.0}], "torch": "2.13.0+cpu"}'
    )
    assert found and not found.warnings and not found.outdated(None, 0)


@pytest.mark.parametrize(
    ("text", "driver", "gpus", "outdated"),
    [
        (TEXT, "580.95.05", 2, False),
        (TEXT, "580.105.08", 2, True),
        (TEXT, "580.95.05", 1, True),
        (TEXT, None, 2, False),
        (CPU, None, 0, False),
        (CPU, "580.95.05", 1, True),
    ],
)
def test_figures_are_of_one_driver_and_one_set_of_gpus(
    text: str, driver: str | None, gpus: int, outdated: bool
) -> None:
    found = figures.parse(text)
    assert found and found.outdated(driver, gpus) is outdated


def test_warnings_are_those_of_the_planned_environment() -> None:
    checks = {
        "/etc/bringup/environments/serve/torch-0.json": TEXT,
        "/etc/bringup/environments/old/torch-0.json": TEXT,
    }
    assert list(figures.warnings(checks, "/etc/bringup/environments/serve")) == [
        "cuda:1 (NVIDIA L4) reaches 12 TFLOP/s"
    ]
