"""testinfra over pyinfra's own connections.

testinfra's paramiko backend runs the commands, and the client that it uses is the one that pyinfra's
connector has opened. So user, key, agent, port, known hosts and their policy, ssh configuration, jump hosts
and privileges are those of the deploy by construction, one connection serves all checks of a host, and it
can carry a port as well. testinfra's own `ssh://` and `paramiko://` addresses have no words for half of that.
"""

import functools
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import gevent
import paramiko
import testinfra.host
from gevent.server import StreamServer
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import make_unix_command_for_host
from testinfra.backend.local import LocalBackend
from testinfra.backend.paramiko import ParamikoBackend

# What pyinfra's connectors take for themselves; the rest makes the command line (sudo, su, doas ...).
_NOT_OF_THE_COMMAND = {"_success_exit_codes", "_timeout", "_get_pty", "_stdin"}


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit code."""

    text: str
    errors: str
    code: int


class UnreachableError(Exception):
    """The host cannot be connected to; one sentence says why."""


class _AsPyinfra:
    """Commands with the privileges that the inventory gives, wrapped as pyinfra wraps them."""

    pyinfra_host: Host
    # without it, testinfra asks the host's Python for its encoding: a round trip, and a Python, too many
    _encoding: str | None = "utf-8"

    def get_command(self, command: str, *args: str) -> str:
        host = self.pyinfra_host
        given: dict[str, Any] = dict(pop_global_arguments(host.state, host, {})[0])
        privileges = {
            key: given[key]
            for key in CONNECTOR_ARGUMENT_KEYS
            if key in given and key not in _NOT_OF_THE_COMMAND
        }
        text = StringCommand(ParamikoBackend.quote(command, *args))
        return str(make_unix_command_for_host(host.state, host, text, **privileges).get_raw_value())


class SshConnection(_AsPyinfra, ParamikoBackend):  # type: ignore[misc]
    """A host over SSH."""

    def __init__(self, host: Host) -> None:
        ParamikoBackend.__init__(self, "pyinfra")
        self.hostname, self.pyinfra_host, self._encoding = host.name, host, "utf-8"

    @functools.cached_property
    def client(self) -> paramiko.SSHClient:
        """The client that pyinfra's connector opens; testinfra drops it when the connection broke."""
        self.pyinfra_host.connected = False
        self.pyinfra_host.connect(show_errors=False, raise_exceptions=True)
        connector = self.pyinfra_host.connector
        assert isinstance(connector, SSHConnector)
        assert connector.client
        return connector.client

    @functools.cached_property
    def peers(self) -> set[str]:
        """Where the host sees this connection come from; where addresses are translated, it alone knows."""
        _, said, _ = self.client.exec_command('echo "peer=$SSH_CONNECTION"')
        return set(re.findall(r"peer=([\da-fA-F.:]+)", said.read().decode(errors="replace")))


class LocalConnection(_AsPyinfra, LocalBackend):  # type: ignore[misc]
    """This machine: `@local`."""

    def __init__(self, host: Host) -> None:
        LocalBackend.__init__(self)
        self.hostname, self.pyinfra_host, self._encoding = host.name, host, "utf-8"


Connection = SshConnection | LocalConnection


def run_with_input(host: testinfra.host.Host, script: str, line: str) -> Answer:
    """Runs a script with the inventory's privileges and one line on its standard input, in one round trip.

    A secret given so is in no process list, neither here nor there.
    """
    connection = host.backend
    command, given = connection.get_command(script), f"{line}\n".encode()
    if isinstance(connection, LocalConnection):
        done = subprocess.run(["/bin/sh", "-c", command], input=given, capture_output=True, check=False)
        return Answer(
            done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), done.returncode
        )
    channel = connection.client.get_transport().open_session()
    channel.exec_command(command.encode())
    channel.sendall(given)
    channel.shutdown_write()
    errors = gevent.spawn(channel.makefile_stderr("rb").read)
    text = channel.makefile("rb").read()
    return Answer(
        text.decode(errors="replace"), errors.get().decode(errors="replace"), channel.recv_exit_status()
    )


def connect(host: Host) -> testinfra.host.Host:
    """testinfra's view of the host, connected.

    Raises:
        UnreachableError: it refuses, does not answer, or is of a kind that is not checked here.
    """
    connection: Connection
    if host.connector_cls is LocalConnector:
        connection = LocalConnection(host)
    elif host.connector_cls is SSHConnector:
        connection = SshConnection(host)
    else:
        raise UnreachableError(f"{host.name}: only hosts over SSH and @local can be checked.")
    try:
        if isinstance(connection, SshConnection):
            _ = connection.client
    except (ConnectError, OSError, EOFError, paramiko.SSHException) as error:
        raise UnreachableError(
            f"{host.name}: cannot be reached as the inventory says: {error}. "
            f"Try `pyinfra INVENTORY --limit {host.name} exec -- true`."
        ) from error
    return testinfra.host.Host(connection)


def is_jumped_to(host: testinfra.host.Host) -> bool:
    """Whether the host is reached through another one, so that its network need not be ours."""
    connection = host.backend
    if isinstance(connection, LocalConnection):
        return False
    return isinstance(connection.client.get_transport().sock, paramiko.Channel | paramiko.ProxyCommand)


def seen_as(host: testinfra.host.Host, address: str) -> set[str]:
    """The addresses by which a host may see requests of ours to one of its own: by the route, and by SSH."""
    if is_jumped_to(host):
        return {address}
    seen = set(host.backend.peers) if isinstance(host.backend, SshConnection) else set()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as route, suppress(OSError):
        # nothing is sent
        route.connect((address, 9))
        seen.add(str(route.getsockname()[0]))
    return seen


@contextmanager
def port_of(host: testinfra.host.Host, address: str, port: int) -> Iterator[tuple[str, int]]:
    """Where this process reaches an address of the host: itself for `@local`, else through SSH."""
    connection = host.backend
    if isinstance(connection, LocalConnection):
        yield address, port
        return
    transport = connection.client.get_transport()

    def carry(client: Any, peer: tuple[str, int]) -> None:
        try:
            channel = transport.open_channel("direct-tcpip", (address, port), peer)
        except (paramiko.SSHException, EOFError):
            # nothing listens there, or the host forwards nothing: for the client, a closed connection
            return
        back = gevent.spawn(_pour, channel, client)
        _pour(client, channel)
        back.join()
        channel.close()

    server = StreamServer(("127.0.0.1", 0), carry)
    server.start()
    try:
        yield "127.0.0.1", server.server_port
    finally:
        server.stop(timeout=1)


def _pour(source: Any, sink: Any) -> None:
    """Copies until the source ends, then ends the sink's writing side."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(1)
    except OSError:
        # either side hung up: the other one is told by the closing of the channel
        pass
