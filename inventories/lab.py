"""The lab: throw-away hosts on this computer, made by `python -m tests.lab up`."""

import os

_net = os.environ.get("BRINGUP_LAB_NET", "10.44.0")

lab = [(f"lab-{number}", {"ssh_hostname": f"{_net}.1{number}"}) for number in (1, 2)]
