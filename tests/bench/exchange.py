"""bringup's download program on the hosts of a site, as their units would run it in an exchange."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.bench.site import REPOSITORY, Process, Site

PROGRAM = REPOSITORY / "templates/models/fetch.py"
PORT = 26_000


def start(place: Site, number: int, model: str, commit: str, **share: Any) -> Process:
    """The program on one host; `share` changes its part in the exchange."""
    base = place.srv(number) / model
    job = {
        "model": model,
        "revision": "master",
        "commit": commit,
        "directory": f"{base}/{commit}",
        "staging": f"{base}/.part",
        "places": [place.endpoint],
        "pinned_by": place.endpoint,
        "locked": {},
        "include": [],
        "exclude": [],
        "patience_seconds": 60,
        "max_rate_mbit": None,
    }
    everyone = [place.address(each) for each in range(1, place.hosts + 1)]
    flag = place.folder / f"guarded-{number}"
    guard = ["/bin/sh", PROGRAM.with_name("firewall.sh"), "up", PORT, flag, *everyone]
    assert place.inside(number, *guard).wait() == 0
    part: dict[str, Any] = {
        "me": place.address(number),
        "seeds": everyone[:1],
        "peers": everyone,
        "expected": everyone,
    }
    part |= {"port": PORT, "firewall": str(flag)} | share
    alone = {} if place.hosts == 1 else {"BRINGUP_SHARE": json.dumps(part)}
    environment = {"PATH": os.environ["PATH"], "HOME": str(place.folder)} | alone
    output = (place.folder / f"log-{number}").open("wb")
    command = [place.client.with_name("python"), "-B", PROGRAM, json.dumps(job)]
    return place.inside(number, *command, env=environment, stdout=output, stderr=output)


def log(place: Site, number: int) -> str:
    """What the program on a host has said."""
    return (place.folder / f"log-{number}").read_text()
