"""ROOT/sources.json: where a lab's hosts get everything, for the settings of the lab's inventory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from tests.lab.hubs import chat_model, pip, wheels
from tests.lab.hubs.conda import python
from tests.lab.hubs.ollama import Offer
from tests.lab.hubs.serve import FILES_PORT, MODELSCOPE_PORT

DEFAULT_NET = "10.44.0"


def address() -> str:
    """The hosts' gateway, where the servers listen: .1 of the lab's network."""
    return f"{os.environ.get('BRINGUP_LAB_NET', DEFAULT_NET)}.1"


def files_url() -> str:
    return f"http://{address()}:{FILES_PORT}"


def write_sources(root: Path, python_version: str, lock: Path, installer: Path, ollama: Offer) -> None:
    """Complete or not at all; pip's addresses may hold a password, so for root's eyes only."""
    temporary = root / f".sources.json.{os.getpid()}"
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(sources(python_version, lock, installer, ollama), indent=2) + "\n")
    temporary.replace(root / "sources.json")


def sources(python_version: str, lock: Path, installer: Path, ollama: Offer) -> dict[str, object]:
    index = pip.configured_urls("index-url")
    with installer.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "models": {"endpoint": f"http://{address()}:{MODELSCOPE_PORT}"},
        "conda": {
            "installer_url": f"{files_url()}/installers/{installer.name}",
            "installer_sha256": sha256,
            "lock_file": str(lock),
            "python": python.minor_version(python_version),
        },
        "wheels": {
            "index": index[0] if index else None,
            "extra_indexes": pip.configured_urls("extra-index-url"),
            "find_links": [f"{files_url()}/wheels/", *pip.configured_urls("find-links")],
        },
        "ollama": dataclasses.asdict(ollama),
        "model": chat_model.NAME,
        "torch": f"{wheels.TORCH}+cpu",
        "vllm": f"{wheels.VLLM}+cpu",
    }
