"""Stand-ins for what the lab's hosts cannot reach: a ModelScope hub, a conda channel, CPU wheels.

Stand-ins in name too: they speak the real protocol to the real clients, and the product knows nothing of
them but the addresses in sources.json.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.hubs.conda.channel import build_channel, build_installer, fetch_python
from tests.lab.hubs.conda.python import minor_version
from tests.lab.hubs.models import build_models
from tests.lab.hubs.recipe import BuildError, locked
from tests.lab.hubs.sources import files_url, write_sources
from tests.lab.hubs.wheels import build_wheels

__all__ = ["BuildError", "build"]


def build(root: Path, base_image: Path) -> None:
    """Make everything that `serve` serves under `root`, and ROOT/sources.json.

    Under a second when nothing changed; about 40 s the first time. Raises BuildError.
    """
    root.mkdir(parents=True, exist_ok=True)
    with locked(root):
        build_parts(root, base_image)


def build_parts(root: Path, base_image: Path) -> None:
    version = fetch_python(root, base_image)
    with ThreadPoolExecutor() as threads:
        wheels = threads.submit(build_wheels, root, minor_version(version))
        build_models(root)
        lock = build_channel(root, f"{files_url()}/conda")
        installer = build_installer(root)
        wheels.result()
    write_sources(root, version, lock, installer)
