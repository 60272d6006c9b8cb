"""Read by pyinfra before it connects to anything."""

from ops.ssh import send_at_once

send_at_once()
