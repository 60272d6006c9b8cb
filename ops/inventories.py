"""Inventories and limits that pyinfra would misread in silence: the run ends with a sentence instead."""

import fnmatch
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra_cli import cli  # type: ignore[import-untyped]
from pyinfra_cli import inventory as reading
from pyinfra_cli.exceptions import CliError  # type: ignore[import-untyped]

from plan import inventory as inventories

_matches = cli._get_inventory_pattern_matches


def refuse_mistakes(inventory: str | None) -> None:
    """From now on an inventory or a `--limit` with a mistake in it ends the run, with an exit code of 1.

    pyinfra goes on with the hosts that it understood, none perhaps, and ends with 0.

    Raises:
        SystemExit: there is no such inventory.
    """
    if inventory and _is_path(inventory) and not Path(inventory).is_file():
        raise SystemExit(f"{inventory}: there is no such inventory. Name a file, as inventories/prod.py.")
    reading._get_groups_from_filename = _groups
    cli._get_inventory_pattern_matches = _chosen


def _is_path(word: str) -> bool:
    return word.endswith(".py") and "," not in word and "@" not in word


def _groups(filename: str) -> dict[str, Any]:
    names = reading.exec_file(filename, return_locals=True)
    problems = inventories.faults(names)
    if problems:
        raise CliError("\n".join(f"{filename}: {problem}" for problem in problems))
    return dict(inventories.groups(names))


def _chosen(inventory: Inventory, patterns: Iterable[str], option: str) -> list[Host]:
    names = sorted(host.name for host in inventory)
    for pattern in patterns:
        if pattern not in inventory.groups and not fnmatch.filter(names, pattern):
            some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise CliError(f"{option} {pattern}: no host or group is called that. There are {some}.")
    found: list[Host] = _matches(inventory, patterns, option)
    return found
