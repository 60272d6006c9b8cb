"""Read by pyinfra before it connects to anything."""

import os

from ops import inventories, locks, report
from ops.ssh import send_at_once

send_at_once()
# pyinfra's own spinner would be drawn across the table of long work (`ops/progress.py`)
os.environ.setdefault("PYINFRA_PROGRESS", "off")
inventories.refuse_mistakes(locks.inventory_of_the_command_line())
locks.use_beside(locks.inventory_of_the_command_line())
report.expect("deploy.py")
