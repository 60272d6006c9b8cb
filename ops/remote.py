"""Commands run on the host from inside a function of an operation, with that operation's privileges."""

from dataclasses import dataclass
from typing import Any

from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.context import host


@dataclass(frozen=True)
class Answer:
    """What a command said: whether it succeeded, and its standard output."""

    ok: bool
    text: str


@dataclass(frozen=True)
class Remote:
    """A host with the privileges (sudo, su ...) of one operation."""

    host: Host
    privileges: dict[str, Any]

    def run(self, script: str) -> Answer:
        """Runs a shell script on the host, in one round trip.

        Raises:
            OSError, EOFError, paramiko.SSHException: the connection is gone.
        """
        ok, output = self.host.run_shell_command(StringCommand(script), **self.privileges)
        return Answer(ok, output.stdout)


def privileges() -> dict[str, Any]:
    """The connector arguments of the operation whose generator runs now."""
    given: Any = host.current_op_global_arguments or {}
    return {key: given[key] for key in CONNECTOR_ARGUMENT_KEYS if key in given}
