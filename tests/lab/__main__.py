"""`python -m tests.lab`: throw-away hosts on this computer. See tests/lab/README.md."""

from __future__ import annotations

import argparse
import os
import sys

from tests.lab import machines, needs, supervisor
from tests.lab.layout import MOST_HOSTS, Lab, LabError


def main() -> int:
    arguments = _parser().parse_args()
    try:
        needs.check()
        return int(arguments.act(arguments) or 0)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or 'The lab'}: {error.strerror or error}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "Interrupted: `python -m tests.lab up` goes on from here, `down` clears it away.", file=sys.stderr
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="Throw-away hosts on this computer."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="bring up N hosts and the stand-in services; leaves alone what runs")
    up.add_argument(
        "count",
        nargs="?",
        type=int,
        default=machines.DEFAULT_COUNT,
        metavar="N",
        help=f"1 to {MOST_HOSTS}, {machines.DEFAULT_COUNT} if not given",
    )
    up.add_argument("--no-hubs", action="store_true", help="hosts only, no stand-in services")
    up.set_defaults(act=_up)

    down = commands.add_parser("down", help="end and remove the hosts; keeps base image, keys and caches")
    down.set_defaults(act=lambda arguments: machines.down())
    clean = commands.add_parser("clean", help="down, and remove base image, keys and caches too")
    clean.set_defaults(act=lambda arguments: machines.clean())
    status = commands.add_parser(
        "status", help="a line per host: name, address, state, what its systemd says"
    )
    status.set_defaults(act=_status)

    ssh = commands.add_parser("ssh", help="a shell on HOST, or COMMAND in it")
    ssh.add_argument("--user", default="root", help="root, or ops: unprivileged with sudo")
    ssh.add_argument("host", metavar="HOST")
    ssh.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    ssh.set_defaults(act=_ssh)

    power_off = commands.add_parser("power-off", help="pull the plug of HOST; its disk stays")
    power_off.add_argument("host", metavar="HOST")
    power_off.set_defaults(act=lambda arguments: machines.power_off(arguments.host))
    boot = commands.add_parser("boot", help="start HOST again on the same disk")
    boot.add_argument("host", metavar="HOST")
    boot.set_defaults(act=lambda arguments: machines.boot(arguments.host))
    return parser


def _up(arguments: argparse.Namespace) -> None:
    hosts = machines.up(arguments.count, hubs=not arguments.no_hubs)
    print(
        f"look around with `python -m tests.lab ssh {hosts[0].name}`, end it with `python -m tests.lab down`"
    )


def _status(arguments: argparse.Namespace) -> None:
    hosts = machines.status()
    if not hosts:
        print("No lab is up: `python -m tests.lab up` makes one.")
    for host in hosts:
        print(f"{host.name:6} {host.address:15} {host.state:8} {host.system}")


def _ssh(arguments: argparse.Namespace) -> None:
    """ssh takes this process's place: its terminal, its signals and its exit status are ours."""
    host = Lab.from_environment().host(arguments.host)
    if not supervisor.is_running(host):
        raise LabError(f"{host.name} is powered off: `python -m tests.lab boot {host.name}` starts it.")
    command = machines.ssh_command(host, arguments.user)
    words = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if words:
        command += ["--", *words]
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
