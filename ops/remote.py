"""Commands run on the host from inside a function of an operation, with that operation's privileges."""

from dataclasses import dataclass
from typing import Any

from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.context import host, state


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

    @staticmethod
    def own(host: Host) -> dict[str, Any]:
        """The connector arguments that the inventory gives this host, for what no operation runs."""
        given, _ = pop_global_arguments(state, host, {})
        return {
            key: value for key, value in given.items() if key in CONNECTOR_ARGUMENT_KEYS and key != "_stdin"
        }

    def run(self, script: str, stdin: str | None = None) -> Answer:
        """Runs a shell script on the host, in one round trip; `stdin` is what it reads.

        Raises:
            OSError, EOFError, paramiko.SSHException: the connection is gone.
        """
        given = {"_stdin": [stdin]} if stdin is not None else {}
        ok, output = self.host.run_shell_command(StringCommand(script), **self.privileges | given)
        return Answer(ok, output.stdout)


def privileges() -> dict[str, Any]:
    """The connector arguments of the operation whose generator runs now."""
    given: Any = host.current_op_global_arguments or {}
    return {key: given[key] for key in CONNECTOR_ARGUMENT_KEYS if key in given}
