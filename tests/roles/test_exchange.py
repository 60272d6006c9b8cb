"""Hosts exchange a model over their LAN: one pulls, all have it, nobody else gets in, nobody waits for ever.

The real program, client and aria2 in network namespaces on one bridge; the hub stands behind an uplink.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import exchange
from tests.bench.site import Process, Site, site, until
from tests.lab.hubs.repository import Repository

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not shutil.which("aria2c") or os.geteuid() != 0, reason="needs root and aria2"),
]

NAME, LARGE, UPLINK_MBIT = "Qwen/Large", 40_000_000, 160


@pytest.fixture
def place(modelscope: Path) -> Iterator[Site]:
    """Three hosts and a hub with a model of two large files and a small one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = folder / "source"
        source.mkdir()
        for name in ("model-1.safetensors", "model-2.safetensors"):
            (source / name).write_bytes(os.urandom(LARGE))
        (source / "config.json").write_text("{}")
        objects = folder / "hub" / "models" / NAME
        published = Repository()
        published.commit(source, objects / "objects", "Publish", 1_700_000_000)
        published.save(objects)
        with site(3, UPLINK_MBIT, folder, modelscope) as made:
            yield made


def commit(place: Site) -> str:
    repository = Repository.load(place.folder / "hub" / "models" / NAME)
    assert repository
    return repository.branches["master"]


def ended(place: Site, processes: dict[int, Process]) -> None:
    """All hosts have the model, whole: the program has hashed it against the hub's list."""
    for number, process in processes.items():
        assert process.wait(timeout=120) == 0, exchange.log(place, number)[-3000:]
        there = place.srv(number) / NAME / "current"
        assert {path.name for path in there.iterdir()} - {".bringup.json"} == {
            *("config.json", "model-1.safetensors", "model-2.safetensors")
        }


def asked(place: Site) -> list[dict[str, object]]:
    lines = (place.folder / "hub" / "requests.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "FilePath=" in entry["path"]]


def test_the_hub_gives_every_file_once_and_nothing_is_left_behind(place: Site) -> None:
    before = place.sent()
    running = {number: exchange.start(place, number, NAME, commit(place)) for number in (1, 2, 3)}
    until(lambda: "26001" in listening(place, 2))
    assert set(ports(place, 1)) <= {f"{place.address(1)}:26000", f"{place.address(1)}:26001"}
    assert not place.reaches(place.control, 1, exchange.PORT)
    assert not place.reaches(place.control, 2, exchange.PORT + 1)
    assert place.reaches(3, 1, exchange.PORT)
    ended(place, running)
    assert place.sent() - before < 1.1 * 2 * LARGE
    assert len({(entry["path"], entry["range"]) for entry in asked(place)}) == len(asked(place))
    assert not place.said(1, "pgrep", "-x", "aria2c", "--ns", str(os.getpid()), "--nslist", "net").strip()
    assert not list(place.folder.rglob("*.aria2"))


def test_two_seeds_pull_different_files(place: Site) -> None:
    seeds = [place.address(1), place.address(2)]
    running = {
        number: exchange.start(place, number, NAME, commit(place), seeds=seeds) for number in (1, 2, 3)
    }
    ended(place, running)
    clients = {str(entry["path"]).rpartition("=")[2]: entry["client"] for entry in asked(place)}
    assert clients["model-1.safetensors"] != clients["model-2.safetensors"]
    assert set(clients.values()) == set(seeds)


def test_a_host_that_cannot_reach_the_others_pulls_for_itself(place: Site) -> None:
    place.closed(3, exchange.PORT)
    running = {
        number: exchange.start(place, number, NAME, commit(place), first_word_seconds=4)
        for number in (1, 2, 3)
    }
    ended(place, running)
    assert "nothing comes over the LAN any more: 3 files are pulled here" in exchange.log(place, 3)
    assert "nothing comes" not in exchange.log(place, 2)


def test_when_the_seed_dies_the_others_pull_for_themselves(place: Site) -> None:
    running = {
        number: exchange.start(place, number, NAME, commit(place), silence_seconds=4) for number in (1, 2, 3)
    }
    until(lambda: "% of" in exchange.log(place, 2))
    time.sleep(2)
    running.pop(1).kill()
    ended(place, running)
    assert "nothing comes over the LAN any more" in exchange.log(place, 2)


def listening(place: Site, number: int) -> str:
    return place.said(number, "ss", "-Hltn")


def ports(place: Site, number: int) -> list[str]:
    """What listens beyond loopback on a host."""
    there = (line.split()[3] for line in listening(place, number).splitlines())
    return [address for address in there if not address.startswith("127.")]
