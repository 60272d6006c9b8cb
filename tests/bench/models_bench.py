"""How long N hosts wait for a model, and what that costs the site's uplink: `make bench-models` (needs root).

Each host is a network namespace on one bridge. What it sends is shaped to 10 U, the hub's answers to U: its
interface is the site's uplink. Side by side, for the same 500 MB model in four shards:

    fanout  bringup's download program on every host, one seed
    each    every host runs `modelscope download`
    rsync   a control machine on the LAN pulls with `modelscope download`, then sends to all with rsync

Prints a table and writes runs/bench-models.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.bench import exchange
from tests.bench.site import REPOSITORY, Process, Site, site, until
from tests.lab.hubs.client import install_client
from tests.lab.hubs.repository import Repository

NAME = "Bench/Model-500MB"
SHARDS, SHARD_BYTES, SMALL_FILES = 4, 124_900_000, 8


Way = Callable[[Site, Repository], None]
WAYS = ("fanout", "each", "rsync")


def fanout(place: Site, repository: Repository) -> None:
    members = [
        exchange.start(place, number, NAME, repository.branches["master"])
        for number in range(1, place.hosts + 1)
    ]
    for number, process in enumerate(members, 1):
        assert process.wait() == 0, exchange.log(place, number)[-2000:]


def pull(place: Site, number: int) -> Process:
    environment = {"HOME": str(place.srv(number)), "MODELSCOPE_ENDPOINT": place.endpoint}
    target = place.srv(number) / NAME / "here"
    return place.inside(number, place.client, "download", NAME, "--local-dir", target, env=environment)


def each(place: Site, _: Repository) -> None:
    for process in [pull(place, number) for number in range(1, place.hosts + 1)]:
        assert process.wait() == 0


def rsync(place: Site, _: Repository) -> None:
    assert pull(place, place.control).wait() == 0
    sending = []
    for number in range(1, place.hosts + 1):
        settings = place.folder / f"rsyncd-{number}.conf"
        settings.write_text(f"use chroot = no\n[srv]\npath = {place.srv(number)}\nread only = no\nuid = 0\n")
        place.srv(number).mkdir(exist_ok=True)
        command = ["rsync", "--daemon", "--no-detach", f"--config={settings}", "--port=8730"]
        place.inside(number, *command, f"--address={place.address(number)}")
    for number in range(1, place.hosts + 1):
        target = f"rsync://{place.address(number)}:8730/srv/"
        command = ["rsync", "-a", "--whole-file", f"{place.srv(place.control)}/{NAME.split('/')[0]}", target]
        until(partial(listens, place, target))
        sending.append(place.inside(place.control, *command))
    for process in sending:
        assert process.wait() == 0


def listens(place: Site, target: str) -> bool:
    return place.inside(place.control, "rsync", target).wait() == 0


def measure(place: Site, repository: Repository, way: Way) -> tuple[float, int]:
    """Seconds until the last host has every byte, and bytes over the uplink."""
    before, began = place.sent(), time.monotonic()
    way(place, repository)
    seconds, sent = time.monotonic() - began, place.sent() - before
    check(place, repository)
    for number in range(1, place.control + 1):
        shutil.rmtree(place.srv(number), ignore_errors=True)
    return seconds, sent


def check(place: Site, repository: Repository) -> None:
    """Every host has every file in its whole size; what was hashed on the way is not hashed again here."""
    files = repository.commits[repository.branches["master"]].files
    for number in range(1, place.hosts + 1):
        folders = [path.parent for path in place.srv(number).rglob("config.json") if not path.is_symlink()]
        assert folders, f"host {number} has nothing"
        there = {path: (folders[0] / path).stat().st_size for path in files}
        assert there == {path: file.size for path, file in files.items()}, f"host {number}"


def publish(folder: Path) -> Repository:
    """The model on the stand-in hub: random bytes, since a real one's do not compress either."""
    models = folder / "hub" / "models" / NAME
    published = Repository()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for number in range(1, SHARDS + 1):
            shard = Path(temporary) / f"model-{number:05}-of-{SHARDS:05}.safetensors"
            shard.write_bytes(os.urandom(SHARD_BYTES))
        for number in range(1, SMALL_FILES):
            (Path(temporary) / f"small-{number}.json").write_bytes(os.urandom(50_000))
        (Path(temporary) / "config.json").write_text("{}")
        published.commit(Path(temporary), models / "objects", "Publish", 1_700_000_000)
    published.save(models)
    return published


def row(place: Site, repository: Repository, ways: Sequence[str]) -> dict[str, float]:
    files = repository.commits[repository.branches["master"]].files
    model_bytes = sum(file.size for file in files.values())
    found: dict[str, float] = {
        "hosts": place.hosts,
        "limit_s": round(model_bytes * 8 / place.uplink_mbit / 1e6, 1),
        "model_bytes": model_bytes,
    }
    for name, way in zip(WAYS, (fanout, each, rsync), strict=True):
        if name in ways:
            seconds, uplink = measure(place, repository, way)
            found |= {f"{name}_s": round(seconds, 1)} | (
                {"fanout_uplink_bytes": uplink} if way is fanout else {}
            )
    return found


def line(new: dict[str, float]) -> str:
    """A row of the table; a dash is what was not measured."""
    seconds = [f"{new[name]:.1f}" if name in new else "-" for name in ("fanout_s", "each_s", "rsync_s")]
    times = f"{new['fanout_s'] / new['limit_s']:.2f}" if "fanout_s" in new else "-"
    uplink = (
        f"{new['fanout_uplink_bytes'] / new['model_bytes']:.2f} x the model" if "fanout_s" in new else "-"
    )
    return (
        f"{new['hosts']:5.0f}  {new['limit_s']:7.1f}  {seconds[0]:>8}  {times:>7}  {seconds[1]:>6}  "
        f"{seconds[2]:>7}  {uplink}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="How long N hosts wait for a model.")
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--uplink-mbit", type=int, default=100)
    parser.add_argument(
        "--ways", choices=WAYS, nargs="+", default=WAYS, help="only these; nothing is written"
    )
    arguments = parser.parse_args()
    rows = []
    print("hosts  limit s  fanout s  x limit  each s  rsync s  fanout's uplink")
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bringup-bench-") as temporary:
        folder = Path(temporary)
        client, repository = install_client(folder / "client"), publish(folder)
        for hosts in arguments.hosts:
            with site(hosts, arguments.uplink_mbit, folder, client) as place:
                rows.append(row(place, repository, arguments.ways))
            print(line(rows[-1]), flush=True)
    if set(arguments.ways) == set(WAYS):
        runs = REPOSITORY / "runs"
        runs.mkdir(exist_ok=True)
        (runs / "bench-models.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
