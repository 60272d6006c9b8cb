"""The tools that a host gets beside the planned stack, with their hashes."""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Tool:
    """A pinned wheel: its version, and the sha256 of every file that may be it on this architecture."""

    version: str
    sha256: tuple[str, ...]


@functools.cache
def uv(architecture: str) -> Tool:
    """uv, by which every other Python package comes; `architecture` is "x86_64" or "aarch64"."""
    row = _table()["uv"]
    return Tool(row["version"], tuple(row[architecture]))


def modelscope() -> str:
    """The version of the ModelScope client, the same whatever vLLM is."""
    version: str = _table()["modelscope"]["version"]
    return version


@functools.cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("tools.toml").read_text())
