"""Stand-ins for what the lab's hosts cannot reach: a ModelScope hub, a conda channel, CPU wheels, Ollama.

Stand-ins in name too: they speak the real protocol to the real clients, and the product knows nothing of
them but the addresses in sources.json.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.hubs.conda.channel import CHANNEL, build_channel, build_installer, fetch_python
from tests.lab.hubs.conda.python import minor_version
from tests.lab.hubs.models import build_models
from tests.lab.hubs.ollama import Offer, build_ollama
from tests.lab.hubs.recipe import BuildError, locked
from tests.lab.hubs.sources import files_url, write_sources
from tests.lab.hubs.wheels import build_wheels
from tests.lab.layout import Lab

__all__ = ["BuildError", "build", "build_ollama_alone"]


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
        ollama = build_ollama(root, files_url(), root / "conda" / CHANNEL)
        wheels.result()
    write_sources(root, version, lock, installer, ollama)


def build_ollama_alone(root: Path, base_image: Path, url: str) -> Offer:
    """ROOT/ollama for hosts that find ROOT under `url`; Python comes from this computer's own lab."""
    shared = Lab.from_environment().hubs
    shared.mkdir(parents=True, exist_ok=True)
    with locked(shared):
        fetch_python(shared, base_image)
        build_channel(shared, f"{files_url()}/conda")
        return build_ollama(root, url, shared / "conda" / CHANNEL)
