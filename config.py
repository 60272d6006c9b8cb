"""Read by pyinfra before it connects to anything."""

from ops import locks, report
from ops.ssh import send_at_once

send_at_once()
locks.use_beside(locks.inventory_of_the_command_line())
report.expect("deploy.py")
