"""Which NVIDIA driver is kept or installed."""

from dataclasses import replace

import pytest

from plan import driver
from plan.answer import DriverChoice, Failure, Machine
from plan.gpus import Gpu, lookup


def cards(*names: str) -> tuple[Gpu, ...]:
    return tuple(lookup(name) for name in names)


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        (("GTX 1080 Ti",), "proprietary"),
        (("V100",), "proprietary"),
        (("T4",), "open"),
        (("L40S",), "open"),
        (("RTX 5090",), "open"),
        (("V100", "A100 80GB"), "proprietary"),
        (("V100", "B200"), None),
        (("GTX 980 Ti", "GH200"), None),
    ],
)
def test_modules_follow_the_generation(names: tuple[str, ...], modules: str | None) -> None:
    assert driver.modules_for(cards(*names)) == modules


@pytest.mark.parametrize(("name", "branch"), [("GTX 980 Ti", 580), ("V100", 580), ("T4", 595), ("B300", 595)])
def test_the_last_branch_that_drives_a_generation_is_not_passed(name: str, branch: int) -> None:
    choice = driver.planned(Machine(gpus=cards(name), os="ubuntu24.04"))
    assert isinstance(choice, DriverChoice) and choice.branch == branch


def test_branches_whose_support_ended_are_not_installed() -> None:
    for name in ("T4", "H100", "V100"):
        choice = driver.planned(Machine(gpus=cards(name)))
        assert isinstance(choice, DriverChoice)
        assert choice.branch not in (470, 535, 550, 570, 575, 590, 610, 615)


@pytest.mark.parametrize(
    ("names", "fabric", "subnet"),
    [
        (("H100",) * 8, True, False),
        (("B200",) * 8, True, True),
        (("H100",) * 2, False, False),
        (("H100 PCIe",) * 8, False, False),
        (("L40S",) * 8, False, False),
        (("H200 NVL",) * 4, False, False),
    ],
)
def test_nvswitch_boards_get_the_services_of_their_switches(
    names: tuple[str, ...], fabric: bool, subnet: bool
) -> None:
    choice = driver.planned(Machine(gpus=cards(*names)))
    assert isinstance(choice, DriverChoice)
    assert (choice.fabric_manager, choice.subnet_manager) == (fabric, subnet)


def failures(name: str, version: str, **fields: object) -> tuple[Failure, ...]:
    machine = replace(Machine(gpus=cards(name)), **fields)  # type: ignore[arg-type]
    return driver.failures_of_kept(machine, version)


def test_a_driver_older_than_the_card_is_refused() -> None:
    (failure,) = failures("RTX 5090", "550.127.05")
    assert "first listed by driver 570.86.16" in failure.fact


def test_a_driver_older_than_the_generation_is_refused_for_a_card_without_a_listing() -> None:
    (failure,) = failures("RTX 3070", "450.80.02")
    assert "driver 450.80.02 is older than Ampere" in failure.fact


def test_a_driver_that_was_seen_driving_the_card_is_believed() -> None:
    assert failures("H200", "545.23.08", driver_works=True) == ()
    assert failures("H200", "545.23.08") != ()


def test_a_driver_newer_than_the_last_for_a_card_is_refused() -> None:
    (failure,) = failures("V100", "590.48.01")
    assert "no longer drives Volta" in failure.fact


def test_proprietary_modules_do_not_drive_blackwell() -> None:
    (failure,) = failures("RTX 5090", "580.95.05", modules="proprietary")
    assert "needs the open ones" in failure.fact
    assert failures("RTX 4090", "580.95.05", modules="proprietary") == ()


def test_a_driver_of_the_right_branch_that_does_not_list_the_card_is_said_not_refused() -> None:
    machine = Machine(gpus=cards("L40S"))
    assert driver.failures_of_kept(machine, "535.54.03") == ()
    assert any("does not list L40S" in text for text in driver.warnings_of_kept(machine, "535.54.03"))


def test_a_driver_of_no_known_branch_is_said() -> None:
    machine = Machine(gpus=cards("L40S"))
    assert "of no branch in the tables" in driver.warnings_of_kept(machine, "640.10.01")[0]


def test_the_repository_is_the_systems_own() -> None:
    for os, repository in (("ubuntu22.04", "ubuntu2204"), ("rocky9", "rhel9"), ("openeuler22.03", None)):
        choice = driver.planned(Machine(gpus=cards("L4"), os=os))
        assert isinstance(choice, DriverChoice) and choice.repository == repository
