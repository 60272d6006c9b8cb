"""A run that would reach none, or others, of the hosts that are meant ends with a sentence and with 1."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("lost.py", [], "lost.py: there is no such inventory."),
        (
            "hosts.py",
            ["--limit", "gpu-1"],
            "--limit gpu-1: no host or group is called that. There are gpu-01.",
        ),
        ("hosts.py", ["--limit", "gpu*", "--exclude", "gpu-1"], "--exclude gpu-1: no host or group"),
        ("pair.py", [], "pair.py: chat: ('gpu-01', {}) is no list of hosts."),
    ],
)
def test_a_mistake_in_what_hosts_are_meant_ends_the_run(
    name: str, options: list[str], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "hosts.py").write_text("chat = ['gpu-01']\n")
    (tmp_path / "pair.py").write_text("chat = ('gpu-01', {})\n")
    done = subprocess.run(
        [ROOT / ".venv/bin/pyinfra", "-y", *options, tmp_path / name, "debug-inventory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert sentence in done.stderr
