"""The GPU catalogue."""

from collections import Counter

import pytest

from plan import gpus
from plan.gpus import Capability

# The names that people give to the cards they serve on.
PEOPLE = (
    *(
        "P100",
        "P40",
        "P4",
        "V100",
        "T4",
        "A100",
        "A30",
        "A40",
        "A10",
        "A10G",
        "A2",
        "A16",
        "A800",
        "L4",
        "L40",
    ),
    *("L40S", "L20", "L2", "H100", "H800", "H20", "H200", "GH200", "B200", "GB200", "B300", "GB300", "GB10"),
    *("GTX 980 Ti", "Tesla M40", "GTX 1080 Ti", "TITAN V", "RTX 2080 Ti", "Quadro RTX 8000", "RTX 3060"),
    *(
        "RTX 3090",
        "RTX A6000",
        "RTX 4070 Ti",
        "RTX 4090",
        "RTX 6000 Ada",
        "H100 PCIe",
        "H100 NVL",
        "H200 NVL",
    ),
    *("RTX 5080", "RTX 5090", "RTX 5090 D", "RTX PRO 6000"),
)


def test_the_catalogue_names_eighty_cards_from_maxwell_to_blackwell() -> None:
    cards = gpus.catalogue()
    assert len(cards) >= 80
    generations = {card.architecture for card in cards}
    assert {"Maxwell", "Pascal", "Volta", "Turing", "Ampere", "Ada", "Hopper", "Blackwell"} <= generations


def test_no_pci_id_stands_twice_and_every_card_has_a_source() -> None:
    counts = Counter(card.pci_id for card in gpus.catalogue())
    assert counts.most_common(1)[0][1] == 1
    assert all(card.source for card in gpus.catalogue())


@pytest.mark.parametrize("name", PEOPLE)
def test_the_names_people_use_are_known(name: str) -> None:
    assert gpus.lookup(name).name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("10de:26b9", "L40S"),
        ("10DE:26B9", "L40S"),
        ("26b9", "L40S"),
        ("0x26b9", "L40S"),
        ("0x26B910DE", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("Tesla V100-SXM2-32GB", "V100 SXM2 32GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("a100-80g", "A100 SXM4 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5 80GB"),
        ("NVIDIA H200", "H200 SXM 141GB"),
        ("Quadro RTX 8000", "Quadro RTX 8000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
    ],
)
def test_a_card_is_found_however_it_is_written(written: str, name: str) -> None:
    assert gpus.lookup(written).name == name


@pytest.mark.parametrize(
    ("name", "capability"), [("A10", "8.6"), ("P4", "6.1"), ("L4", "8.9"), ("A2", "8.6")]
)
def test_a_short_name_is_not_taken_for_the_start_of_a_longer_one(name: str, capability: str) -> None:
    card = gpus.lookup(name)
    assert (str(card.capability), card.note) == (capability, "")


def test_a_name_with_several_sizes_means_the_smallest_and_says_so() -> None:
    card = gpus.lookup("V100")
    assert card.memory_gib < 16
    assert "16 and 32 GB" in card.note and "'V100 32GB'" in card.note
    assert gpus.lookup("V100 32GB").memory_gib > 31


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("RTX 4900", "Did you mean"),
        ("Radeon", "is not in the catalogue"),
        ("10de:ffff", "PCI id 10de:ffff is not in the catalogue"),
        ("$(reboot)", "is not in the catalogue"),
        ("", "is not in the catalogue"),
    ],
)
def test_an_unknown_card_is_refused_in_one_sentence(name: str, says: str) -> None:
    with pytest.raises(gpus.UnknownGpuError, match=says.replace("(", r"\(")) as refusal:
        gpus.lookup(name)
    assert "\n" not in str(refusal.value)


def test_a_newer_card_is_taken_at_its_drivers_word_with_a_warning() -> None:
    card = gpus.from_driver(
        name="NVIDIA R100", pci_device_id="10de:3fff", memory_mib=294912, compute_capability="10.7"
    )
    assert (card.capability, card.known) == (Capability(10, 7), False)
    assert "not in the catalogue" in card.note


def test_an_unknown_card_whose_driver_says_too_little_is_refused() -> None:
    with pytest.raises(gpus.UnknownGpuError, match="did not report its compute capability"):
        gpus.from_driver(
            name="NVIDIA R100", pci_device_id="10de:3fff", memory_mib=294912, compute_capability=None
        )


def test_a_board_with_more_memory_than_usual_has_what_its_driver_reports() -> None:
    usual = gpus.lookup("RTX 2080 Ti")
    enlarged = usual.with_memory_mib(22528)
    assert enlarged.memory_gib == pytest.approx(21.7, abs=0.1)
    assert usual.with_memory_mib(11264) == usual
