"""The tools that a host gets beside the planned stack, with their hashes."""

import functools
from dataclasses import dataclass

from plan import tables


@dataclass(frozen=True)
class Tool:
    """A pinned wheel: its version, and the sha256 of every file that may be it on this architecture."""

    version: str
    sha256: tuple[str, ...]


@functools.cache
def uv(architecture: str) -> Tool:
    """uv, by which every other Python package comes; `architecture` is "x86_64" or "aarch64"."""
    row = tables.read("tools")["uv"]
    return Tool(row["version"], tuple(row[architecture]))


def modelscope() -> str:
    """The version of the ModelScope client, the same whatever vLLM is."""
    version: str = tables.read("tools")["modelscope"]["version"]
    return version


def modelscope_parts() -> tuple[tuple[str, ...], str]:
    """The distributions that the ModelScope client is made of, and the day on which they were tried."""
    row = tables.read("tools")["modelscope"]
    return tuple(row["parts"]), row["tried"]
