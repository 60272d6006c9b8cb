"""A bare host in a network without a way out: installed a year later from a bundle, the same, and answering.

`test_lock` has the same with a network and without a server; this one deploys two bare hosts and starts two
servers, four and a half minutes, so it is left to `make test-online`. It needs root as the lab does.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.closed import bare, closed
from tests.e2e.deploys import HOSTS, deploy, on
from tests.e2e.test_lock import files, plan
from tests.lab import machines
from tests.lab.layout import REPOSITORY, Lab
from tests.plan import wheel_index

pytestmark = [pytest.mark.online, pytest.mark.timeout(2400), pytest.mark.usefixtures("fleet")]

ENVIRONMENT = "/opt/bringup/conda/envs/serve"
# Asked for without a version; a newer release of each is offered before the bundle is made.
LOOSE = tuple(f"loose-{letter}" for letter in "abcde")


def inventory(folder: Path, url: str, *hosts: str) -> Path:
    """The lab's inventory of these hosts, with five packages of ours."""
    shutil.copytree(REPOSITORY / "inventories", folder)
    lab = Lab.from_environment()
    entries = [(name, {"ssh_hostname": lab.host(name).address}) for name in hosts]
    (folder / "lab.py").write_text(f"lab = {entries!r}\n")
    with (folder / "group_data" / "lab.py").open("a") as data:
        data.write('\nenvironment = {**environment, "packages": ["asks-for-five==1.0"]}\n')
        data.write(f'sources = {{**sources, "wheels_extra": ["{url}"]}}\n')
    return folder / "lab.py"


def test_a_bare_host_in_a_closed_network_is_installed_from_a_bundle_answers_and_is_the_same(
    tmp_path: Path,
) -> None:
    lab = Lab.from_environment()
    index = tmp_path / "index"
    wheel_index.publish(index, {f"{name}==1.0": [] for name in LOOSE} | {"asks-for-five==1.0": LOOSE})
    with wheel_index.served(index, lab.gateway) as url, bare() as host:
        fleet = inventory(tmp_path / "inventories", url, HOSTS[0], host)
        assert "2 hosts, 1 stacks" in plan("lock", str(fleet))
        first = deploy("--limit", HOSTS[0], inventory=str(fleet))
        assert first.code == 0, first.errors[-4000:]
        wheel_index.publish(index, {f"{name}==2.0": [] for name in LOOSE})
        # onto the first host's own disk, as if it were a stick
        place = machines.disk(HOSTS[0]) / "media" / "bundle"
        assert "all verified" in plan("bundle", str(fleet.with_suffix(".lock")), str(place))
        with (fleet.parent / "group_data" / "lab.py").open("a") as data:
            data.write('\nsources = {**sources, "bundle": "/media/bundle"}\n')
            data.write(f'bundle = {{"serve_from": "{HOSTS[0]}"}}\n')
        with closed(HOSTS[0], host):
            run = deploy(inventory=str(fleet))
            assert run.code == 0, run.errors[-4000:]
            assert '"finish_reason"' in on(HOSTS[0], question(lab, host))
            again = deploy("--json", inventory=str(fleet))
            assert again.changed() == {}
        one, other = (files(name, ENVIRONMENT) for name in (HOSTS[0], host))
        assert any("loose_e-1.0.dist-info" in path for path in other)
        assert one == other
        one, other = (files(name, "/srv/models/Qwen") for name in (HOSTS[0], host))
        # what says when and whence they came
        manifests = {path for path in one if path.endswith("/.bringup.json")}
        assert manifests and {p: one[p] for p in one if p not in manifests} == {
            p: other[p] for p in other if p not in manifests
        }
    clear(HOSTS[0])


def question(lab: Lab, host: str) -> str:
    """A chat question to a host's front, as a shell command."""
    key = Path(lab.api_key).read_text().strip()
    return (
        f"curl -s -m 60 http://{lab.host(host).address}:8000/v1/chat/completions "
        f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' "
        """-d '{"model": "Qwen/Qwen2.5-Tiny-Instruct", "max_tokens": 8, """
        """"messages": [{"role": "user", "content": "hello"}]}'"""
    )


def clear(host: str) -> None:
    """What no deploy of another inventory would take away."""
    on(host, "systemctl disable --quiet --now bringup-bundle-server.service")
    paths = ("/media/bundle", "/etc/bringup/bundle-server", "/etc/bringup/apt.list")
    on(host, f"rm -rf {' '.join(paths)} /etc/systemd/system/bringup-bundle-server.service")
    on(host, "systemctl daemon-reload")
