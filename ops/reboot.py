"""A reboot that is over when the host answers with another boot id, and not before."""

import time
from collections.abc import Generator
from typing import Any

import gevent
import paramiko
from pyinfra import logger
from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.connectors.util import clear_askpass_cache
from pyinfra.context import host

from ops.remote import Remote, privileges
from ops.waiting import CONNECTION_ERRORS, say

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
# A server with much memory and many disks is long in its firmware.
MOST_SECONDS = 1800.0
PAUSE_SECONDS = 2.0


@operation()
def reboot(
    label: str, before: str, only_if: str = "true", needed: bool = True
) -> Generator[PyinfraCommand, None, None]:
    """Reboots the host after a script has stopped what must not be cut; waits until it is back.

    Args:
        label: why, for the operator's eyes.
        before: shell script; the host is not rebooted when it fails.
        only_if: shell command that tells on the host whether it is to be rebooted.
        needed: whether anything is done.
    """
    if not needed:
        host.noop("no reboot is needed")
        return
    yield FunctionCommand(_reboot, (label, before, only_if, privileges()), {})


def _reboot(state: State, host: Host, label: str, before: str, only_if: str, given: dict[str, Any]) -> bool:
    """False fails this host alone."""
    remote = Remote(host, given)
    if not remote.run(only_if).ok:
        return True
    if host.name.startswith("@local"):
        say(remote, label, "this is the machine that you run on. Reboot it by hand.", logger.error)
        return False
    old = remote.run(BOOT_ID).text.strip()
    prepared = remote.run(before)
    if not prepared.ok:
        say(remote, label, f"not rebooted: {prepared.text.strip()}", logger.error)
        return False
    say(remote, label, "rebooting")
    # detached: the connection that asks for it ends with it
    remote.run("systemd-run --quiet --collect --on-active=1 systemctl reboot")
    return _is_back(remote, label, old)


def _is_back(remote: Remote, label: str, old: str) -> bool:
    """Connects anew in each try: the old sshd may answer for a while, and tells by its boot id."""
    started = time.monotonic()
    while time.monotonic() - started < MOST_SECONDS:
        gevent.sleep(PAUSE_SECONDS)
        found = _boot_id(remote)
        if found and found != old:
            say(remote, label, f"is back after {time.monotonic() - started:.0f} s")
            return True
    say(remote, label, f"did not come back within {MOST_SECONDS:.0f} s. Look at its console.", logger.error)
    return False


def _boot_id(remote: Remote) -> str:
    host = remote.host
    # what lay on the connection that is gone cannot be removed through it
    clear_askpass_cache(host)
    try:
        host.disconnect()
        host.connect(show_errors=False, raise_exceptions=True)
        return remote.run(BOOT_ID).text.strip()
    except (ConnectError, paramiko.SSHException, *CONNECTION_ERRORS):
        host.connected = False
        return ""
