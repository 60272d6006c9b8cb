"""The probe's shell text on this very machine: any POSIX shell, few tools, nothing written."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plan.probe import PACKAGES, Probe, parse
from roles.host.facts import script

SCRIPT = script(PACKAGES)
# What every Debian and RHEL host has before anything is installed on it.
BARE_TOOLS = (
    *("sh", "cat", "cut", "df", "dirname", "find", "grep", "head", "id", "ls"),
    *("sed", "sha256sum", "sort", "tail", "timeout", "tr", "uname"),
)


def output(*shell: str, **environment: str) -> str:
    done = subprocess.run(
        [*shell, "-c", SCRIPT], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def here() -> Probe:
    return parse(output("sh"))


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox sh"])
def test_every_posix_shell_gives_the_same_answer(shell: str, here: Probe) -> None:
    if not shutil.which(shell.split()[0]):
        pytest.skip(f"no {shell} on this machine")
    answer = parse(output(*shell.split()))
    assert (answer.boot_id, answer.kernel, answer.os) == (here.boot_id, here.kernel, here.os)
    assert (answer.packages, answer.glibc, answer.systemd) == (here.packages, here.glibc, here.systemd)
    # networks come and go beside a test
    assert bool(answer.addresses) == bool(here.addresses)
    assert (set(answer.disks), answer.cpu_flags) == (set(here.disks), here.cpu_flags)


def test_a_host_with_little_more_than_coreutils_is_understood(here: Probe, tmp_path: Path) -> None:
    for tool in BARE_TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / tool).symlink_to(found)
    answer = parse(output(str(tmp_path / "sh"), PATH=str(tmp_path)))
    assert (answer.kernel, answer.memory_gib, set(answer.disks)) == (
        here.kernel,
        here.memory_gib,
        set(here.disks),
    )
    assert bool(answer.listening) == bool(here.listening)
    assert (answer.glibc, answer.addresses, answer.packages) == (None, (), {})


def test_what_is_no_utf8_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    said = tmp_path / "hostname"
    said.write_bytes("主机".encode() + b"\xd6\xf7\n")
    text = SCRIPT.replace("/proc/sys/kernel/hostname", str(said))
    answer = subprocess.run(["sh", "-c", text], capture_output=True, check=True).stdout
    assert parse(answer.decode()).hostname == "主机"


@pytest.fixture
def overlaid(tmp_path: Path) -> Iterator[list[str]]:
    """A command that runs another with this machine's files below a layer that keeps every write."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare")
    layer, root = tmp_path / "layer", tmp_path / "root"
    for folder in (layer, root):
        folder.mkdir()
    entry = tmp_path / "enter"
    entry.write_text(
        f"""set -e
mount -t tmpfs tmpfs {layer}
mkdir {layer}/upper {layer}/work
mount -t overlay overlay -o lowerdir=/,upperdir={layer}/upper,workdir={layer}/work {root}
for folder in proc sys dev; do mount --rbind /$folder {root}/$folder; done
chroot {root} "$@" >{tmp_path}/answer
find {layer}/upper -mindepth 1
"""
    )
    command = ["unshare", "--mount", "--propagation", "private", "sh", str(entry)]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("overlays cannot be mounted here")
    yield command


def test_nothing_is_written(overlaid: list[str], tmp_path: Path) -> None:
    proof = subprocess.run([*overlaid, "touch", "/var/touched"], capture_output=True, text=True, check=True)
    assert proof.stdout.split()[-1].endswith("/var/touched")
    done = subprocess.run([*overlaid, "sh", "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    parse((tmp_path / "answer").read_text())


def test_comments_and_placeholders_do_not_travel() -> None:
    assert not re.search(r"(?m)^ *#|@[A-Z_]+@", SCRIPT)
    assert " ".join(PACKAGES) in SCRIPT


def test_every_block_that_the_parser_reads_is_printed_whatever_the_host() -> None:
    blocks = re.findall(r"(?m)^block (\w+)", SCRIPT)
    assert re.findall(r"(?m)^@@(\w+)$", output("sh")) == blocks
    assert blocks[-1] == "end"


def test_a_version_of_ollama_counts_by_its_program_and_a_blob_by_what_it_occupies(tmp_path: Path) -> None:
    for name in ("1.0", "1.1.part"):
        program = tmp_path / "ollama" / name / "bin" / "ollama"
        program.parent.mkdir(parents=True)
        program.touch(0o755)
    (tmp_path / "ollama" / "0.9" / "lib").mkdir(parents=True)
    store = tmp_path / "store" / "blobs"
    store.mkdir(parents=True)
    with (store / "sha256-a-partial").open("wb") as partial:
        partial.write(b"1" * 2**20)
        partial.flush()
        partial.truncate(2**30)
    text = SCRIPT.replace("/opt/bringup", str(tmp_path)).replace(
        "/srv/models/ollama", str(tmp_path / "store")
    )
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    found = parse(done.stdout).ollama
    assert (sorted(found.versions), sorted(found.torn)) == (["1.0"], ["0.9", "1.1.part"])
    assert found.unused == {"sha256-a-partial"}
    assert 2**20 <= found.unused_bytes == found.stored_bytes < 2**21


def test_a_directory_that_is_a_link_to_another_disk_is_looked_into(tmp_path: Path) -> None:
    model = tmp_path / "disk" / "Qwen" / "Tiny" / "commit"
    model.mkdir(parents=True)
    (model / ".bringup.json").write_text("{}")
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    (model.parent / ".cut.part").mkdir()
    (model.parent / ".cut.part" / "weights").write_bytes(b"x" * (1 << 20))
    (model.parent / ".current.part").symlink_to("commit")
    script = SCRIPT.replace("/srv/models", str(tmp_path / "models"))
    answer = parse(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout)
    ((directory, gib),) = answer.model_parts.items()
    assert directory == str(tmp_path / "models/Qwen/Tiny/.cut.part")
    assert gib == pytest.approx(2**-10, rel=0.1)
    assert list(answer.models) == [str(tmp_path / "models/Qwen/Tiny/commit")]
    assert answer.paths[str(tmp_path / "models")].kind == "d"
