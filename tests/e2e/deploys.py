"""Runs of the product as an operator starts them, against the lab's hosts."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import machines
from tests.lab.layout import REPOSITORY, Lab

PYINFRA = REPOSITORY / ".venv/bin/pyinfra"
HOSTS = ("lab-1", "lab-2")
UNIT = "vllm-chat.service"
HUB, FILES = 9100, 9200


@dataclass(frozen=True)
class Run:
    """A finished run: exit code, what it said, and how long it took."""

    code: int
    output: str
    errors: str
    seconds: float

    @property
    def results(self) -> dict[str, Any]:
        """pyinfra's own account of a `--json` run."""
        return dict(json.loads(self.output)["results"])

    def changed(self) -> dict[str, list[str]]:
        """Operations that changed something -> hosts."""
        return {op["name"]: op["success"] for op in self.results["operations"] if op["success"]}


def command(*arguments: str, inventory: str = "inventories/lab.py") -> list[str]:
    """A deploy's command line; `arguments` go before the inventory."""
    return [str(PYINFRA), "-y", *arguments, inventory, "deploy.py"]


def deploy(*arguments: str, inventory: str = "inventories/lab.py", **environment: str) -> Run:
    """Deploys and waits."""
    started = time.monotonic()
    done = subprocess.run(
        command(*arguments, inventory=inventory),
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=1200,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def deployed() -> Run:
    """Deploys, and asserts that all went well."""
    run = deploy("--json")
    assert run.code == 0, run.errors[-4000:]
    return run


@contextmanager
def deploying(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A deploy under way; killed at the end if it still runs."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command(), cwd=REPOSITORY, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def until(what: str, condition: Callable[[], bool], timeout_seconds: float = 300) -> None:
    """Waits for a condition; fails with its name."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_seconds:.0f} s"
        time.sleep(0.2)


def on(host: str, script: str) -> str:
    """What a shell command says on a lab host."""
    return machines.run(host, script, timeout_seconds=300).stdout.strip()


def running(host: str, task: str) -> bool:
    """Whether a long task is at work on the host."""
    return on(host, f"systemctl show -P SubState bringup-{task}.service") == "running"


def faults(port: int, **switched: Any) -> None:
    """Switches the stand-in server's faults; none clears them."""
    address = Lab.from_environment().gateway
    body = json.dumps(switched).encode()
    request = urllib.request.Request(
        f"http://{address}:{port}/_lab", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def heal() -> None:
    """Clears every fault that a test switched on."""
    for port in (HUB, FILES):
        faults(port)
