"""What the hosts of an inventory have been given as settings, as JSON; no host is asked.

python -m ops.inventory inventories/prod.py
"""

import json
import sys


def main() -> None:
    """Prints host -> its merged sections, without what is pyinfra's own, which may hold passwords."""
    from gevent.monkey import patch_all

    patch_all()
    from pyinfra.api.state import State
    from pyinfra.context import ctx_state
    from pyinfra_cli.exceptions import CliError  # type: ignore[import-untyped]
    from pyinfra_cli.inventory import make_inventory  # type: ignore[import-untyped]

    from ops import inventories
    from plan import settings

    inventories.refuse_mistakes(sys.argv[1])
    ctx_state.set(State())
    try:
        inventory = make_inventory(sys.argv[1])
    except CliError as error:
        raise SystemExit(str(error)) from None
    found = {}
    for host in inventory:
        layers = [
            inventory.get_data(),
            *(inventory.get_group_data(group) for group in host.groups),
            inventory.get_host_data(host.name),
        ]
        found[host.name] = settings.own(settings.merge(layers))
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
