"""How long it takes to lock 100 hosts of 3 stacks: `python -m tests.bench.lock_bench`. Figures, not a test.

Needs a package index. The first run fills uv's cache; the later ones are what an operator waits for.
"""

import time

from plan import lock, lock_make
from plan.lock import Lock
from plan.seen import Seen
from tests.plan.locks import GPU, ONE, listed, settings

HOSTS = 100
KINDS = (ONE, settings(vllm="0.10.2"), settings(vllm="0.11.0"))


def main() -> None:
    """Prints the figures."""
    hosts = [Seen(f"gpu-{number}", KINDS[number % len(KINDS)], GPU) for number in range(HOSTS)]
    timed("the cache as it is", hosts, None)
    there = timed("a warm cache", hosts, None)
    timed("a lock that is there", hosts, there)


def timed(name: str, hosts: list[Seen], old: Lock | None) -> Lock:
    """Makes the lock and prints how long that took."""
    start = time.perf_counter()
    made = lock_make.make(hosts, old, model=listed)
    text = lock.render(made.lock, "fleet.py")
    seconds = time.perf_counter() - start
    stacks, kilobytes = len(made.lock.stack), len(text) / 1000
    print(f"{HOSTS} hosts, {stacks} stacks, {name}: {seconds:.1f} s, {kilobytes:.0f} kB")
    print("".join(f"{problem}\n" for problem in made.problems), end="")
    return made.lock


if __name__ == "__main__":
    main()
