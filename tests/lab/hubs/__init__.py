"""Stand-ins for what the lab's hosts cannot reach: a ModelScope hub, a conda channel, CPU wheels.

Stand-ins in name too: they speak the real protocol to the real clients, and the product knows nothing of
them but the addresses in sources.json.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab.hubs.models import build_models

__all__ = ["build"]


def build(root: Path, base_image: Path) -> None:
    """Make everything that `serve` serves under `root`; quick when nothing changed."""
    root.mkdir(parents=True, exist_ok=True)
    build_models(root)
