"""A site in network namespaces: a hub behind an uplink, hosts on a LAN of ten times that. Needs root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
NET, HUB_PORT = "10.58.0", 9100
# Sites of two processes are apart: names are of this computer, addresses of a bridge of their own.
PREFIX = f"site{os.getpid()}"

Process = subprocess.Popen[Any]


class Site:
    """A hub behind an uplink of U Mbit/s, and hosts on a LAN of ten times that."""

    def __init__(self, hosts: int, uplink_mbit: int, folder: Path, client: Path) -> None:
        self.hosts, self.control = hosts, hosts + 1
        self.uplink_mbit, self.folder, self.client = uplink_mbit, folder, client
        self.processes: list[Process] = []

    def address(self, number: int) -> str:
        """Of a host from 1 on; 0 is the hub, the last is the control machine."""
        return f"{NET}.{10 + number}"

    def inside(self, number: int, *command: object, **options: Any) -> Process:
        null = subprocess.DEVNULL
        started: Process = subprocess.Popen(
            ["ip", "netns", "exec", f"{PREFIX}-{number}", *map(str, command)],
            **({"stdin": null, "stdout": null, "stderr": null} | options),
        )
        self.processes.append(started)
        return started

    def up(self) -> None:
        call("ip", "link", "add", PREFIX, "type", "bridge")
        call("ip", "link", "set", PREFIX, "up")
        for number in range(self.control + 1):
            space, link = f"{PREFIX}-{number}", f"{PREFIX}-{number}"
            call("ip", "netns", "add", space)
            call("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            call("ip", "link", "set", link, "master", PREFIX, "up")
            rate = self.uplink_mbit * (10 if number else 1)
            shape = ["tbf", "rate", f"{rate}mbit", "burst", f"{max(256, rate)}kb", "latency", "50ms"]
            for command in (
                ["ip", "addr", "add", f"{self.address(number)}/24", "dev", "eth0"],
                ["ip", "link", "set", "eth0", "up"],
                ["ip", "link", "set", "lo", "up"],
                ["tc", "qdisc", "add", "dev", "eth0", "root", *shape],
            ):
                call("ip", "netns", "exec", space, *command)
        hub = [sys.executable, "-m", "tests.lab.hubs", "serve", self.folder / "hub", self.address(0)]
        self.inside(0, *hub, cwd=REPOSITORY)
        until(lambda: self.inside(1, "curl", "-s", f"{self.endpoint}/x").wait() == 0)

    @property
    def endpoint(self) -> str:
        return f"http://{self.address(0)}:{HUB_PORT}"

    def sent(self) -> int:
        """Bytes that went over the uplink towards the hosts."""
        show = ["ip", "netns", "exec", f"{PREFIX}-0", "ip", "-s", "-j", "link", "show", "eth0"]
        answer = json.loads(subprocess.run(show, capture_output=True, check=True).stdout)
        return int(answer[0]["stats64"]["tx"]["bytes"])

    def said(self, number: int, *command: str) -> str:
        """What a command says inside a host."""
        called = ["ip", "netns", "exec", f"{PREFIX}-{number}", *command]
        return subprocess.run(called, capture_output=True, text=True, check=False).stdout

    def reaches(self, number: int, other: int, port: int) -> bool:
        """Whether a connection from one host to a port of another is taken."""
        connect = f"exec 3<>/dev/tcp/{self.address(other)}/{port}"
        return self.inside(number, "timeout", "1", "bash", "-c", connect).wait() == 0

    def closed(self, number: int, port: int) -> None:
        """Closes a host to the ports of an exchange, both ways."""
        rules = f"tcp dport {{ {port}, {port + 1} }} drop"
        for hook in ("input", "output"):
            chain = f"add chain inet closed {hook} {{ type filter hook {hook} priority 0; }}"
            for line in ("add table inet closed", chain, f"add rule inet closed {hook} {rules}"):
                assert self.inside(number, "nft", line).wait() == 0

    def down(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            process.wait()
        for number in range(self.control + 1):
            subprocess.run(["ip", "netns", "del", f"{PREFIX}-{number}"], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", PREFIX], check=False, capture_output=True)

    def srv(self, number: int) -> Path:
        return self.folder / f"host-{number}"


@contextmanager
def site(hosts: int, uplink_mbit: int, folder: Path, client: Path) -> Iterator[Site]:
    made = Site(hosts, uplink_mbit, folder, client)
    made.down()  # what a killed run left
    try:
        made.up()
        yield made
    finally:
        made.down()


def call(*command: object, **options: Any) -> None:
    subprocess.run(list(map(str, command)), check=True, **options)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
