"""A network without a way out, for some of the lab's hosts, and a host that nothing was ever done to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.deploys import on
from tests.lab import machines
from tests.lab.layout import Lab

# What a Debian host does by itself, some time in the day.
OF_ITS_OWN = "apt-daily.timer apt-daily-upgrade.timer"


@contextmanager
def closed(*hosts: str) -> Iterator[None]:
    """What these hosts send beyond each other is dropped, and fails the test with its destinations.

    Who logs in to them is let through. The hubs are outside, like all else, and closed off both ways: what
    the hosts still sent on connections of before would be answered.
    """
    lab = Lab.from_environment()
    for name in hosts:
        on(name, f"systemctl stop {OF_ITS_OWN}")
    addresses = ", ".join(lab.host(name).address for name in hosts)
    table = f"{lab.packet_table}_closed"
    rules = f"""
    table ip {table} {{
      set outward {{ type ipv4_addr . inet_proto; flags dynamic; size 1000; counter; }}
      chain way_out {{
        type filter hook prerouting priority raw;
        ip saddr {{ {addresses} }} ip daddr {{ {addresses} }} accept
        ip saddr {{ {addresses} }} tcp sport 22 accept
        ip saddr {{ {addresses} }} add @outward {{ ip daddr . meta l4proto }} drop
      }}
      chain way_in {{
        type filter hook output priority raw;
        ip daddr {{ {addresses} }} tcp dport != 22 drop
      }}
    }}"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
        assert _sent(table) == []
        on(hosts[-1], f"timeout 1 bash -c 'echo >/dev/tcp/{lab.gateway}/9100' || true")
        assert _sent(table), "what is sent outward was not counted at all"
    finally:
        subprocess.run(["nft", "delete", "table", "ip", table], check=True)


def _sent(table: str) -> list[str]:
    """Where packets were sent to, and how many."""
    words = ["nft", "--json", "list", "set", "ip", table, "outward"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    (found,) = (entry["set"] for entry in json.loads(said)["nftables"] if "set" in entry)
    return [json.dumps(element) for element in found.get("elem", ())]


@contextmanager
def bare() -> Iterator[str]:
    """A third host, as it is made."""
    machines.up(3)
    try:
        yield "lab-3"
    finally:
        machines.power_off("lab-3")
