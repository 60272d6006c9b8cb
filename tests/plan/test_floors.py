"""What a healthy GPU should reach."""

import tomllib
from pathlib import Path

import pytest

from plan import floors, gpus

TABLE = tomllib.loads((Path(floors.__file__).with_name("gpu-floors.toml")).read_text())
CATALOGUE = {card.name: card for card in gpus.catalogue()}


def test_every_row_is_of_known_cards_and_cites_its_source() -> None:
    names = [name for row in TABLE["card"] for name in row["names"]]
    assert set(names) <= set(CATALOGUE)
    assert len(names) == len(set(names))
    assert all(row["source"] and isinstance(row["verified"], bool) for row in TABLE["card"])


def test_a_floor_is_a_stated_share_of_the_peak() -> None:
    floor = floors.floor_of(gpus.lookup("H100"))
    assert floor == floors.Floor(tflops=296.7, memory_gb_s=1675, link_gb_s=135)
    assert (TABLE["tflops_share"], TABLE["memory_share"], TABLE["link_share"]) == (0.3, 0.5, 0.3)


def test_a_card_without_a_published_figure_here_has_no_floor() -> None:
    assert floors.floor_of(gpus.lookup("GTX 1080 Ti")) is None


def test_only_modules_of_a_switched_board_have_a_link_to_expect() -> None:
    for row in TABLE["card"]:
        if "link_gb_s" in row:
            assert all(CATALOGUE[name].nvswitch for name in row["names"])


@pytest.mark.parametrize(
    "name", ["T4", "L4", "L40S", "A100 SXM4 80GB", "H100", "H200", "B200", "RTX 4090", "A10G"]
)
def test_the_cards_that_people_serve_on_have_a_floor(name: str) -> None:
    assert floors.floor_of(gpus.lookup(name))
