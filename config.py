"""Read by pyinfra before it connects to anything."""

import os

from ops import inventories, locks, report
from ops.ssh import send_at_once

send_at_once()
# pyinfra's own spinner would be drawn across the table of long work (`ops/progress.py`)
os.environ.setdefault("PYINFRA_PROGRESS", "off")
inventory = locks.inventory_of_the_command_line()
inventories.refuse_mistakes(inventory)
locks.use_beside(inventory)
report.expect("deploy.py", inventory or "")
