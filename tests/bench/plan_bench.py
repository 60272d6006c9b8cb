"""How long a plan takes: `python -m tests.bench.plan_bench`. Figures, not a test."""

import statistics
import time
from collections.abc import Callable
from functools import partial

from plan import resolve
from plan.answer import Machine, Wish
from plan.gpus import lookup

KINDS = (
    (("L40S",) * 2, "535.104.05", "ubuntu22.04", "Qwen/Qwen2.5-7B-Instruct"),
    (("H100",) * 8, "580.95.05", "ubuntu24.04", "Qwen/Qwen2.5-72B-Instruct"),
    (("T4",), None, "ubuntu20.04", "Qwen/Qwen2.5-7B-Instruct-AWQ"),
    (("V100 32GB",) * 4, "550.127.05", "rhel8", "Qwen/Qwen2.5-14B-Instruct"),
    (("T4",), "535.104.05", "debian12", "Qwen/Qwen2.5-72B-Instruct"),  # refused, with fixes
)
HOSTS = 1000


def plan(kind: int) -> None:
    """One full plan of a host of that kind, fixes included when it is refused."""
    names, driver, os, model = KINDS[kind]
    machine = Machine(gpus=tuple(lookup(name) for name in names), driver=driver, os=os)
    resolve.decide(machine, Wish(model=model, manage_driver=driver is None))


def milliseconds(call: Callable[[], None]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def fleet() -> None:
    """A plan for every host of a fleet of few kinds."""
    for host in range(HOSTS):
        plan(host % len(KINDS))


def main() -> None:
    """Prints the figures."""
    print(f"first plan, tables read: {milliseconds(partial(plan, 0)):.0f} ms")
    for kind, (names, driver, os, model) in enumerate(KINDS):
        times = []
        for _ in range(50):
            resolve._decide_kind.cache_clear()
            times.append(milliseconds(partial(plan, kind)))
        what = f"{len(names)} x {names[0]}, driver {driver}, {os}, {model}"
        print(f"one plan: median {statistics.median(times):.1f} ms, worst {max(times):.1f} ms: {what}")
    resolve._decide_kind.cache_clear()
    print(f"{HOSTS} hosts of {len(KINDS)} kinds: {milliseconds(fleet) / 1000:.2f} s")


if __name__ == "__main__":
    main()
