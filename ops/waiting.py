"""Waiting for something on the host, one round trip a look, with a word now and then."""

import time
from collections.abc import Callable

import paramiko
from pyinfra import logger

from ops import progress
from ops.remote import Remote

# A look costs one round trip; something short should not wait for a long pause.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 2.0
HEARTBEAT_SECONDS = 20.0
# cut counts bytes: what it leaves of a character would be the last that is read of an answer
SHORTENED = "cut -c 1-300 | iconv -c -f UTF-8 -t UTF-8"
CONNECTION_ERRORS = (OSError, EOFError, paramiko.SSHException)


def wait(
    remote: Remote,
    label: str,
    look: str,
    judge: Callable[[str, float], bool | None],
    news: Callable[[str], str] = lambda _: "",
) -> bool:
    """Repeats a look until the judge says True or False.

    Args:
        remote: the host.
        label: what is waited for, for the operator's eyes.
        look: shell script whose output tells how things stand.
        judge: from that output and the seconds waited: True (done), False (failed), None (wait on).
        news: from that output, a line worth showing; shown when it changes.

    Returns:
        What the judge said; False too when the connection broke, which fails this host alone.
    """
    try:
        return _wait(remote, label, look, judge, news)
    finally:
        progress.ended(remote, label)


def _wait(
    remote: Remote,
    label: str,
    look: str,
    judge: Callable[[str, float], bool | None],
    news: Callable[[str], str],
) -> bool:
    started = spoken = time.monotonic()
    pause, last = FIRST_PAUSE_SECONDS, ""
    progress.begun(remote, label)
    while True:
        try:
            text = remote.run(look).text
        except CONNECTION_ERRORS as error:
            say(remote, label, f"the connection broke ({str(error) or type(error).__name__}).", logger.error)
            say(remote, label, "the work goes on on the host; run again to join it.", logger.error)
            return False
        now = time.monotonic()
        verdict = judge(text, now - started)
        if verdict is not None:
            return verdict
        line = news(text).strip()
        if (line and line != last) or now - spoken > HEARTBEAT_SECONDS:
            progress.tell(remote, label, line or last or "at work")
            last, spoken = line or last, now
        else:
            progress.goes_on()
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


def say(remote: Remote, label: str, text: str, log: Callable[[str], None] = logger.info) -> None:
    """A line of this host's for the operator."""
    log(f"{remote.host.print_prefix}{label}: {text}")


def shown(name: str, unit: str) -> str:
    """The command that prints a property of a unit; systemctl's own -P came with systemd 246."""
    return f"systemctl show --value -p {name} {unit}"


def journal(unit: str, lines: int) -> str:
    """The command that prints the newest lines of a unit's present run, not of an earlier one."""
    invocation = f'_SYSTEMD_INVOCATION_ID="$({shown("InvocationID", unit)})"'
    return f"journalctl --quiet --no-pager --output=cat --lines={lines} {invocation}"
