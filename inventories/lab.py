"""The lab: throw-away hosts on this computer, made by `python -m tests.lab up`."""

import os as _os
from pathlib import Path as _Path

_net = _os.environ.get("BRINGUP_LAB_NET", "10.44.0")
_state = _Path(_os.environ.get("BRINGUP_LAB_DIR", "/var/lib/bringup-lab"))
if not (_state / "hubs" / "sources.json").exists():
    raise SystemExit("The lab is not up: run `make lab-up` first.")

lab = [(f"lab-{number}", {"ssh_hostname": f"{_net}.1{number}"}) for number in (1, 2)]
