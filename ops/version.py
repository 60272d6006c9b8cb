"""Which version of this program runs."""

from functools import lru_cache
from pathlib import Path

import tomli


@lru_cache(maxsize=1)
def version() -> str:
    """As pyproject.toml has it."""
    project = tomli.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    return str(project["project"]["version"])
