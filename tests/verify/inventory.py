"""The hosts of an inventory, read by pyinfra itself: the same groups, data layers and configuration."""

import fnmatch
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from gevent.monkey import MonkeyPatchWarning

# pyinfra's command line makes the standard library cooperative when it is imported, so it comes first. What
# pytest's plugins imported before it is left as it was; none of them opens a connection of ours.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", MonkeyPatchWarning)
    from pyinfra_cli.inventory import make_inventory  # type: ignore[import-untyped]
    from pyinfra_cli.util import exec_file  # type: ignore[import-untyped]

# isort: split
import click
from pyinfra.api.config import Config
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State
from pyinfra.context import ctx_config, ctx_inventory, ctx_state

from ops import locks


class InventoryError(Exception):
    """There is nothing to check; one sentence says why."""


def load(inventory: str, limit: Sequence[str] = ()) -> list[Host]:
    """The inventory's hosts in its order, ready to be connected to.

    Args:
        inventory: what one gives to `pyinfra`: a file, or hosts such as `@local`.
        limit: group names or patterns of host names, as `pyinfra --limit` takes them; none means all.

    Raises:
        InventoryError: there is no such file, it cannot be read, or no host is left.
    """
    if not (Path(inventory).is_file() or set(inventory) & set("@,")):
        raise InventoryError(f"{inventory}: there is no such inventory. Name one, as in inventories/prod.py.")
    try:
        found = _initialised(inventory)
    except (Exception, SystemExit) as error:
        raise InventoryError(_sentence(inventory, error)) from error
    hosts = _limited(found, limit)
    if not hosts:
        wanted = f" that matches {', '.join(limit)}" if limit else ""
        raise InventoryError(f"{inventory}: there is no host{wanted} in it.")
    return hosts


def _initialised(inventory: str) -> Inventory:
    """What pyinfra does before it connects, `config.py` of the working directory included."""
    state, config = State(), Config()  # type: ignore[no-untyped-call]
    state.cwd = os.getcwd()  # noqa: PTH109 -- pyinfra compares it as text
    ctx_state.set(state)  # type: ignore[no-untyped-call]
    ctx_config.set(config)  # type: ignore[no-untyped-call]
    if Path("config.py").is_file():
        exec_file("config.py")
    locks.use_beside(inventory)
    found: Inventory = make_inventory(inventory, cwd=state.cwd)
    ctx_inventory.set(found)  # type: ignore[no-untyped-call]
    state.init(found, config)
    return found


def _limited(inventory: Inventory, limit: Sequence[str]) -> list[Host]:
    if not limit:
        return list(inventory)
    groups = {host.name for pattern in limit for host in inventory.get_group(pattern, default=[])}
    return [
        host
        for host in inventory
        if host.name in groups or any(fnmatch.fnmatch(host.name, pattern) for pattern in limit)
    ]


def _sentence(inventory: str, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"{inventory}: {error}"
    if isinstance(error, click.ClickException):
        # pyinfra wraps what the file raised
        error = getattr(error, "exception", error)
    fact = str(error) if isinstance(error, PyinfraError | SyntaxError) else f"{type(error).__name__}: {error}"
    return (
        f"{inventory}: cannot be read: {fact}. `pyinfra {inventory} debug-inventory` shows what pyinfra sees."
    )
