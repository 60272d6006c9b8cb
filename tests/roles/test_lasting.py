"""What a host that went down left half written is not believed; what is going on is."""

import subprocess
from pathlib import Path

import pytest

from ops import lasting
from plan.probe import AT_WORK, COMPLETE, parse
from roles.conda.deploy import removal
from tests.roles.test_probe_script import SCRIPT

THIS_BOOT = Path(lasting.BOOT).read_text()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A whole environment, and a cache with something in it."""
    made = tmp_path / "conda" / "envs" / "serve"
    made.mkdir(parents=True)
    (made / COMPLETE).touch()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "wheel").touch()
    return made


def work(prefix: Path, script: str) -> int:
    text = lasting.script(script, str(prefix), [str(prefix.parents[2] / "cache")])
    return subprocess.run(["sh", "-euc", text], check=False).returncode


def believed(prefix: Path) -> bool:
    """Whether the probe counts it."""
    text = SCRIPT.replace("/opt/bringup", str(prefix.parents[2]))
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    return str(prefix) in parse(done.stdout).environments


def marks(prefix: Path) -> list[str]:
    return [path.read_text() for path in prefix.parents[2].rglob(AT_WORK)]


@pytest.mark.parametrize("knows", [True, False])
def test_an_environment_that_conda_no_longer_knows_is_removed_too(prefix: Path, knows: bool) -> None:
    """As its own removal leaves it when it is cut: without the records, with what it had not come to."""
    root = prefix.parents[2]
    (prefix / "lib").mkdir()
    conda = root / "conda" / "bin" / "conda"
    conda.parent.mkdir()
    conda.write_text(f"#!/bin/sh\n{'true' if knows else 'echo EnvironmentLocationNotFound; exit 1'}\n")
    conda.chmod(0o755)
    script = removal("/opt/bringup/conda/envs/serve").script
    text = script.replace("/opt/bringup", str(root)).replace("/etc/bringup", str(root / "etc"))
    assert subprocess.run(["sh", "-euc", text], check=False).returncode == 0
    assert not prefix.exists()
    # it counts until all else has gone
    assert text.index(f"! -name {COMPLETE}") < text.rindex(f"rm -rf {prefix} ")


def test_work_that_is_done_leaves_no_mark_and_keeps_its_cache(prefix: Path) -> None:
    assert work(prefix, f"cp {prefix}/{AT_WORK} {prefix}/seen") == 0
    assert (prefix / "seen").read_text() == THIS_BOOT
    assert marks(prefix) == []
    assert (prefix.parents[2] / "cache" / "wheel").exists()
    assert believed(prefix)


def test_work_that_failed_is_gone_on_with_in_the_same_boot(prefix: Path) -> None:
    assert work(prefix, "exit 3") == 3
    assert marks(prefix) == [THIS_BOOT] * 2
    assert believed(prefix)
    assert work(prefix, "true") == 0
    assert (prefix.parents[2] / "cache" / "wheel").exists()


@pytest.mark.parametrize("boot", ["", "another\n"], ids=["empty", "another"])
def test_after_the_host_went_down_neither_prefix_nor_cache_is_believed(prefix: Path, boot: str) -> None:
    for place in (prefix, prefix.parents[2] / "cache"):
        (place / AT_WORK).write_text(boot)
    assert not believed(prefix)
    assert work(prefix, "true") == 0
    assert not (prefix.parents[2] / "cache" / "wheel").exists()
