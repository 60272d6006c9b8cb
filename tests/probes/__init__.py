"""Answers of the probe, each printed by `roles/host/probe.sh` on a host that was there; names are changed.

debian12-bare       a host that nothing was ever done to, as `python -m tests.lab up` makes it
debian12-served     the same host after a deploy: one service behind a key, wheels and packages of the lab
debian12-container  a developer's container: no systemd, IPv6, compilers
"""

from pathlib import Path

BARE, SERVED, CONTAINER = "debian12-bare", "debian12-served", "debian12-container"


def answer(name: str) -> str:
    """The probe's text, as the host printed it."""
    return Path(__file__).with_name(f"{name}.txt").read_text()


def with_block(text: str, name: str, *lines: str) -> str:
    """The same host with another block: what the probe would print had it found these lines."""
    before, found, rest = text.partition(f"@@{name}\n")
    if not found:
        # captured before the probe had this block
        before, _, rest = text.rpartition("@@end")
        rest = f"@@end{rest}"
    _, _, after = rest.partition("@@")
    return "\n".join([f"{before}@@{name}", *lines, f"@@{after}"])
