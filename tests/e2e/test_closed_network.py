"""A bare host in a network without a way out is installed from a bundle, and answers.

It counts every packet, so it wants hosts that nothing else talks to; it takes about five minutes, and needs
root as the lab does: `make test-online`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.deploys import HOSTS, deploy, on
from tests.e2e.test_lock import plan
from tests.lab import machines
from tests.lab.layout import REPOSITORY, Lab

pytestmark = [pytest.mark.online, pytest.mark.timeout(1500), pytest.mark.usefixtures("fleet")]


@contextmanager
def closed(*hosts: str) -> Iterator[None]:
    """A network without a way out, for these hosts: what they send beyond each other is dropped and counted.

    Whoever logs in to them is let through; the hubs are outside, like all else, and closed off both ways:
    what they still send on connections of before would be answered.
    """
    lab = Lab.from_environment()
    addresses = ", ".join(lab.host(name).address for name in hosts)
    table = f"{lab.packet_table}_closed"
    rules = f"""
    table ip {table} {{
      counter outward {{ }}
      chain way_out {{
        type filter hook prerouting priority raw;
        ip saddr {{ {addresses} }} ip daddr {{ {addresses} }} accept
        ip saddr {{ {addresses} }} tcp sport 22 accept
        ip saddr {{ {addresses} }} counter name outward drop
      }}
      chain way_in {{
        type filter hook output priority raw;
        ip daddr {{ {addresses} }} tcp dport != 22 drop
      }}
    }}"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
        said = subprocess.run(
            ["nft", "list", "counter", "ip", table, "outward"], capture_output=True, text=True, check=True
        ).stdout
        assert "packets 0 bytes 0" in said
        on(hosts[-1], f"timeout 1 bash -c 'echo >/dev/tcp/{lab.gateway}/9100' || true")
        said = subprocess.run(
            ["nft", "list", "counter", "ip", table, "outward"], capture_output=True, text=True, check=True
        ).stdout
        assert "packets 0 bytes 0" not in said, "what is sent outward was not counted at all"
    finally:
        subprocess.run(["nft", "delete", "table", "ip", table], check=True)


@pytest.fixture
def bare_host() -> Iterator[str]:
    """A host that nothing was ever done to."""
    machines.up(3)
    yield "lab-3"
    machines.power_off("lab-3")


def test_a_bare_host_in_a_closed_network_is_installed_from_a_bundle_and_answers(
    bare_host: str, tmp_path: Path
) -> None:
    lab = Lab.from_environment()
    folder = tmp_path / "inventories"
    shutil.copytree(REPOSITORY / "inventories", folder)
    # the first host stays as it is and serves the bundle
    (folder / "lab.py").write_text(
        "import os as _os\n\n"
        "_net = _os.environ.get('BRINGUP_LAB_NET', '10.44.0')\n"
        f"lab = [('{HOSTS[0]}', {{'ssh_hostname': f'{{_net}}.11'}}),\n"
        f"       ('{bare_host}', {{'ssh_hostname': f'{{_net}}.13'}})]\n"
    )
    assert "2 hosts, 1 stacks" in plan("lock", str(folder / "lab.py"))
    said = plan("bundle", str(folder / "lab.lock"), str(tmp_path / "bundle"))
    assert re.search(r"wheels +[0-9]+ files", said) and "all verified" in said
    pack = subprocess.Popen(["tar", "-C", str(tmp_path), "-c", "bundle"], stdout=subprocess.PIPE)
    unpack = [*machines.ssh_command(lab.host(HOSTS[0])), "mkdir -p /media && tar -C /media -x"]
    subprocess.run(unpack, stdin=pack.stdout, check=True, timeout=300)
    assert pack.wait() == 0

    with (folder / "group_data" / "lab.py").open("a") as data:
        data.write('\nsources = {**sources, "bundle": "/media/bundle"}\n')
        data.write(f'bundle = {{"serve_from": "{HOSTS[0]}"}}\n')
    flip = "printf X | dd of=/media/bundle/{} bs=1 seek=1000 conv=notrunc status=none"
    wheel = on(HOSTS[0], "cd /media/bundle && ls -d wheels/torch-*")
    look = f"dd if=/media/bundle/{wheel} bs=1 skip=1000 count=1 status=none | od -An -to1"
    before = on(HOSTS[0], look).strip()
    on(HOSTS[0], flip.format(wheel))
    with closed(HOSTS[0], bare_host):
        refused = deploy(inventory=str(folder / "lab.py"))
        assert refused.code == 1
        assert f"bundle: /media/bundle/{wheel} is damaged" in refused.errors
        on(HOSTS[0], flip.format(wheel).replace("printf X", f"printf '\\{before}'"))
        run = deploy(inventory=str(folder / "lab.py"))
        assert run.code == 0, run.errors[-4000:]
        key = Path(lab.api_key).read_text().strip()
        asked = (
            f"curl -s -m 60 http://{lab.host(bare_host).address}:8000/v1/chat/completions "
            f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' "
            """-d '{"model": "Qwen/Qwen2.5-Tiny-Instruct", "max_tokens": 8, """
            """"messages": [{"role": "user", "content": "hello"}]}'"""
        )
        assert '"finish_reason"' in on(HOSTS[0], asked)
        again = deploy("--json", inventory=str(folder / "lab.py"))
        assert again.changed() == {}
    assert on(bare_host, "ls /var/cache/bringup/bundle 2>&1").endswith("No such file or directory")
    on(HOSTS[0], "rm -rf /media/bundle")
