"""What one command over SSH costs with and without Nagle's algorithm, side by side, on a lab host.

    python -m tests.bench.ssh_bench [HOST] [COMMANDS]

Both connections are open at once and take turns, so that a change in the machine's speed hits both.
"""

import statistics
import sys
import time

import paramiko

from ops.ssh import send_at_once
from tests.lab.layout import Lab


def connect(host: str) -> paramiko.SSHClient:
    lab = Lab.from_environment()
    client = paramiko.SSHClient()
    client.load_host_keys(str(lab.directory / "known_hosts"))
    client.connect(lab.host(host).address, username="root", key_filename=str(lab.directory / "id_ed25519"))
    return client


def seconds_of_one_command(client: paramiko.SSHClient) -> float:
    started = time.perf_counter()
    _, output, _ = client.exec_command("true")
    output.channel.recv_exit_status()
    return time.perf_counter() - started


def main(host: str = "lab-1", commands: str = "100") -> None:
    waiting = connect(host)
    send_at_once()
    prompt = connect(host)
    clients = {"paramiko as it is": waiting, "with TCP_NODELAY": prompt}
    times: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(int(commands)):
        for name, client in clients.items():
            times[name].append(seconds_of_one_command(client))
    for name, values in times.items():
        print(f"{name:20} median {statistics.median(values) * 1000:6.1f} ms of {len(values)} commands")


if __name__ == "__main__":
    main(*sys.argv[1:])
