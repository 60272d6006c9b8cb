"""The lab's machines behave like hosts, survive what hosts survive, and leave nothing behind.

These tests have a lab of their own, so that they can cut its hosts off while another lab is in use.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab import cgroups, keys, machines, outer, supervisor
from tests.lab.layout import REPOSITORY, Lab, LabError, LabHost

HOST, OTHER = "lab-1", "lab-2"


def own_lab(directory: Path, second_octet: int) -> Lab:
    """A lab that shares nothing but the base image; each pytest worker has addresses of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return Lab(directory, f"10.{second_octet + worker}.0", images=Lab.from_environment().images)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = own_lab(tmp_path_factory.mktemp("lab"), second_octet=60)
    try:
        machines.up(2, hubs=False, lab=lab)
        yield lab
    finally:
        machines.clean(lab)


@pytest.fixture
def hosts(lab: Lab) -> Lab:
    """The lab with both hosts up, whatever the test before did to them."""
    machines.up(2, hubs=False, lab=lab)
    return lab


def boot_id(lab: Lab, name: str) -> str:
    return machines.run(name, "cat /proc/sys/kernel/random/boot_id", lab=lab).stdout.strip()


def comm(process: int) -> str:
    """The name of a process; "" of one that has just ended."""
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill_all(cgroup: str) -> None:
    """SIGKILL to every process of a cgroup; some of them end by themselves meanwhile."""
    for process in cgroups.processes(cgroup):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def nspawn_process(host: LabHost) -> int:
    """The outer process that holds the machine."""
    found = [
        process for process in cgroups.processes(host.machine_cgroup) if comm(process) == "systemd-nspawn"
    ]
    assert len(found) == 1
    return found[0]


def command_line(
    lab: Lab, *words: str, path: str | None = None, killed_after_seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "BRINGUP_LAB_DIR": str(lab.directory),
        "BRINGUP_LAB_NET": lab.prefix,
        "BRINGUP_LAB_IMAGES": str(lab.images),
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.lab", *words],
        cwd=REPOSITORY,
        env=environment | ({"PATH": path} if path else {}),
        timeout=killed_after_seconds,
        capture_output=True,
        text=True,
    )


@pytest.mark.lab
def test_a_second_up_leaves_running_hosts_alone(hosts: Lab) -> None:
    before = [boot_id(hosts, name) for name in (HOST, OTHER)]
    machines.up(2, hubs=False, lab=hosts)
    assert [boot_id(hosts, name) for name in (HOST, OTHER)] == before


@pytest.mark.lab
def test_hosts_are_bare_and_have_nothing_failed(hosts: Lab) -> None:
    assert machines.run(HOST, "command -v python3 curl wget", lab=hosts).stdout == ""
    assert machines.run(HOST, "systemctl --failed --no-legend", lab=hosts).stdout == ""


@pytest.mark.lab
def test_only_keys_open_a_host(hosts: Lab) -> None:
    for user in ("root", "ops"):
        login = machines.ssh_command(hosts.host(HOST), user)
        refused = subprocess.run(
            [*login, "-o", "PubkeyAuthentication=no", "-o", "BatchMode=yes", "true"],
            capture_output=True,
            text=True,
        )
        assert refused.returncode == 255
        assert "Permission denied (publickey)." in refused.stderr


@pytest.mark.lab
def test_the_unprivileged_user_becomes_root_through_sudo_alone(hosts: Lab) -> None:
    assert machines.run(HOST, "id -u", user="ops", lab=hosts).stdout != "0\n"
    assert machines.run(HOST, "cat /etc/shadow", user="ops", lab=hosts).returncode != 0
    assert machines.run(HOST, "sudo -n id -u", user="ops", lab=hosts).stdout == "0\n"


@pytest.mark.lab
def test_hosts_reach_one_another_by_name(hosts: Lab) -> None:
    greeting = machines.run(
        HOST, f"bash -c 'read -r line < /dev/tcp/{OTHER}/22; echo $line'", lab=hosts
    ).stdout
    assert greeting.startswith("SSH-2.0-")


@pytest.mark.lab
def test_the_command_line_passes_a_remote_exit_status_on(hosts: Lab) -> None:
    done = command_line(hosts, "ssh", "--user", "ops", HOST, "whoami; exit 7")
    assert (done.returncode, done.stdout) == (7, "ops\n")


@pytest.mark.lab
def test_status_begins_each_line_with_the_name(hosts: Lab) -> None:
    machines.power_off(OTHER, lab=hosts)
    lines = [line.split() for line in command_line(hosts, "status").stdout.splitlines()]
    assert lines == [
        [HOST, f"{hosts.prefix}.11", "running", "running"],
        [OTHER, f"{hosts.prefix}.12", "stopped", "-"],
    ]


@pytest.mark.lab
def test_an_unknown_host_is_answered_with_the_known_ones(hosts: Lab) -> None:
    done = command_line(hosts, "ssh", "lab-7", "true")
    assert (done.returncode, done.stderr) == (2, "There is no host 'lab-7': the lab has lab-1, lab-2.\n")


@pytest.mark.lab
def test_a_host_that_reboots_itself_comes_back(hosts: Lab) -> None:
    before = boot_id(hosts, HOST)
    machines.run(HOST, "systemctl reboot", lab=hosts)
    deadline = time.monotonic() + 30
    while (now := boot_id(hosts, HOST)) in ("", before):
        assert time.monotonic() < deadline, "the host did not come back"
        time.sleep(0.2)
    assert re.fullmatch(r"[0-9a-f-]{36}", now)


@pytest.mark.lab
def test_power_off_ends_every_process_and_keeps_the_disk(hosts: Lab) -> None:
    before = boot_id(hosts, HOST)
    machines.run(HOST, "echo kept > /root/note; systemd-run --unit=work sleep infinity", lab=hosts)
    machines.power_off(HOST, lab=hosts)
    assert cgroups.processes(hosts.host(HOST).cgroup) == set()
    assert machines.run(HOST, "true", lab=hosts).returncode == 255

    machines.boot(HOST, lab=hosts)
    assert boot_id(hosts, HOST) != before
    assert machines.run(HOST, "cat /root/note", lab=hosts).stdout == "kept\n"
    assert machines.run(HOST, "systemctl is-active work", lab=hosts).stdout == "inactive\n"


@pytest.mark.lab
@pytest.mark.parametrize("victim", ["systemd-nspawn", "its supervisor"])
def test_up_heals_a_host_whose_outer_process_was_killed(hosts: Lab, victim: str) -> None:
    host, untouched = hosts.host(HOST), boot_id(hosts, OTHER)
    before = boot_id(hosts, HOST)
    machines.run(HOST, "echo kept > /root/note", lab=hosts)
    if victim == "systemd-nspawn":
        os.kill(nspawn_process(host), signal.SIGKILL)
    else:
        kill_all(host.supervisor_cgroup)
    while supervisor.is_running(host):
        time.sleep(0.05)

    machines.up(2, hubs=False, lab=hosts)
    assert boot_id(hosts, HOST) not in ("", before)
    assert machines.run(HOST, "cat /root/note", lab=hosts).stdout == "kept\n"
    assert boot_id(hosts, OTHER) == untouched


def traces(lab: Lab) -> dict[str, list[str]]:
    """Everything of a lab that this computer still knows, outside its state directory."""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return {
        "links": [path.name for path in Path("/sys/class/net").iterdir() if lab.tag in path.name],
        "packet tables": [line for line in tables.splitlines() if lab.tag in line],
        "mounts": [line for line in mounts_of_all_processes() if str(lab.directory) in line],
        "cgroups": [
            str(path) for hierarchy in cgroups.hierarchies() for path in hierarchy.glob(f"**/*{lab.tag}*")
        ],
        "processes": [line for line in command_lines() if lab.tag in line or str(lab.directory) in line],
        "nspawn": [str(path) for path in Path("/run/systemd/nspawn").glob(f"**/*{lab.tag}*")],
        "disks": [str(path) for path in lab.directory.glob("hosts/*")],
    }


def command_lines() -> list[str]:
    return [text.replace("\0", " ") for text in read_of_all_processes("cmdline")]


def mounts_of_all_processes() -> set[str]:
    return {line for text in read_of_all_processes("mountinfo") for line in text.splitlines()}


def read_of_all_processes(file: str) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / file).read_text()
        except OSError:
            continue


@pytest.mark.lab
@pytest.mark.parametrize("crashed", [False, True], ids=["from a healthy lab", "after a crash"])
def test_down_leaves_nothing_behind(tmp_path: Path, crashed: bool) -> None:
    lab = own_lab(tmp_path, second_octet=90)
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    before = forwarding.read_text()
    try:
        machines.up(2, hubs=False, lab=lab)
        there = traces(lab)
        assert all(
            there[kind] for kind in ("links", "packet tables", "mounts", "cgroups", "processes", "disks")
        )
        if crashed:
            os.kill(nspawn_process(lab.host(HOST)), signal.SIGKILL)
            kill_all(lab.host(OTHER).supervisor_cgroup)
    finally:
        machines.down(lab)
    assert not {kind: left for kind, left in traces(lab).items() if left}
    assert forwarding.read_text() == before
    assert command_line(lab, "status").stdout == "No lab is up: `python -m tests.lab up` makes one.\n"


@pytest.mark.lab
def test_an_up_cut_at_any_moment_is_completed_by_the_next(tmp_path: Path) -> None:
    lab = own_lab(tmp_path, second_octet=90)
    try:
        for seconds in (0.2, 0.4, 0.8):
            with pytest.raises(subprocess.TimeoutExpired):
                command_line(lab, "up", "--no-hubs", killed_after_seconds=seconds)
        machines.up(2, hubs=False, lab=lab)
        assert [host.system for host in machines.status(lab)] == ["running", "running"]
    finally:
        machines.clean(lab)
    assert not {kind: left for kind, left in traces(lab).items() if left}
    assert not lab.directory.exists()


@pytest.mark.lab
def test_a_prefix_that_is_in_use_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    routes = json.loads(subprocess.check_output(["ip", "-json", "-4", "route", "show", "scope", "link"]))
    taken = next(route for route in routes if not route["dev"].startswith("lab"))
    lab = Lab(tmp_path, taken["dst"].rpartition(".")[0], images=tmp_path / "images")
    with pytest.raises(LabError, match=f"is already routed by {taken['dev']} .* set BRINGUP_LAB_NET"):
        machines.up(1, hubs=False, lab=lab)
    assert {path.name for path in tmp_path.iterdir()} <= {"lock"}


@pytest.mark.lab
def test_a_missing_program_is_answered_with_the_line_that_installs_it(tmp_path: Path) -> None:
    done = command_line(own_lab(tmp_path, 90), "up", path=str(tmp_path))
    assert done.returncode == 2
    assert "apt-get install --no-install-recommends iproute2 mmdebstrap nftables" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.lab
def test_secrets_are_their_owners_alone_and_stay_when_made_again(lab: Lab) -> None:
    files = [lab.api_key, lab.login_key, lab.host_key]
    before = [file.read_bytes() for file in files]
    keys.ensure(lab)
    assert [file.read_bytes() for file in files] == before
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_third_party_package_sources_stay_outside(tmp_path: Path) -> None:
    """Two vendors' repositories, in the two forms that install pages give, and a disabled one."""
    debian_key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (tmp_path / "sources.list").write_text(
        f"deb [signed-by={debian_key}] http://mirror.example/debian bookworm main # ours\n"
        "deb-src http://mirror.example/debian bookworm main\n"
        "deb http://mirror.example/debian-security bookworm-security main contrib\n"
    )
    (folder / "docker.list").write_text(
        "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://docker.example bookworm stable\n"
    )
    (folder / "vendor.sources").write_text(
        "Types: deb\nURIs: https://vendor.example/apt\nSuites: bookworm\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/vendor.gpg\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://old.example/debian\nSuites: bookworm\nComponents: main\n"
    )
    sources = outer.package_sources(outer.Distribution("debian", "bookworm"), tmp_path)
    assert [source.fields["URIs"] for source in sources] == [
        "http://mirror.example/debian",
        "http://mirror.example/debian-security",
    ]
    assert sources[0].fields["Signed-By"] == debian_key
    assert {source.fields["Components"] for source in sources} == {"main contrib non-free non-free-firmware"}


def test_a_private_mirror_with_a_key_of_its_own_is_taken_where_there_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "deb [signed-by=/etc/apt/keyrings/company.gpg] https://mirror.example/ubuntu noble main universe\n"
    )
    (source,) = outer.package_sources(outer.Distribution("ubuntu", "noble"), tmp_path)
    assert source.fields["Components"] == "main restricted universe multiverse"
    assert outer.keyrings([source]) == [Path("/etc/apt/keyrings/company.gpg")]


@pytest.mark.parametrize("prefix", ["10.44", "10.44.0.0", "10.44.256", "10.044.0", "ten.0.0", "10.44.0/24"])
def test_a_malformed_prefix_is_refused(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv("BRINGUP_LAB_NET", prefix)
    with pytest.raises(LabError, match="first three octets"):
        Lab.from_environment()
