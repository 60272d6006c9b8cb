"""Downloads on hosts: from where a cut stopped, from the next source, in place only when they are right."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ops import download
from ops.render import render
from tests.lab.hubs.wire import StandInServer
from tests.plan import bundles

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HINT = "no source has it: set sources.it"


@dataclass
class Downloads:
    """A folder of a host, and a server that has one file."""

    server: StandInServer
    requests: Path
    target: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/file"

    def run(self, *urls: str) -> tuple[int, str]:
        script = download.script(urls or [self.url], SHA256, str(self.target), HINT)
        # the pauses are for servers that are down for a while
        script = script.replace("in 1 2 4 8 0", "in 0 0 0 0 0")
        done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def begun(self, content: bytes) -> None:
        Path(f"{self.target}.part").write_bytes(content)

    def fault(self, **switched: object) -> None:
        address = f"{self.url.rpartition('/')[0]}/_lab"
        httpx.post(address, json=switched, trust_env=False).raise_for_status()

    def sent(self) -> int:
        self.server.rest()
        rows = [json.loads(line) for line in self.requests.read_text().splitlines()]
        return sum(row["sent_bytes"] for row in rows if row["method"] == "GET")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Downloads]:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    with bundles.serving(root, tmp_path / "requests.jsonl") as server:
        yield Downloads(server, tmp_path / "requests.jsonl", tmp_path / "a host's file")


def test_what_is_there_and_right_is_not_asked_for(host: Downloads) -> None:
    assert host.run()[0] == 0
    assert host.target.read_bytes() == CONTENT
    host.fault(status=500)
    assert host.run() == (0, "")


@pytest.mark.parametrize(
    ("faults", "most"),
    [
        ({"cut": 400_000}, 1.0),
        ({"status": 503, "status_n": 2}, 1.01),
        ({"status": 429, "status_n": 1}, 1.01),
    ],
    ids=["cut", "down", "busy"],
)
def test_a_fault_that_passes_costs_no_byte_twice(
    host: Downloads, faults: dict[str, object], most: float
) -> None:
    host.fault(**faults)
    code, said = host.run()
    assert code == 0, said
    assert host.target.read_bytes() == CONTENT
    assert host.sent() <= most * len(CONTENT)


@pytest.mark.parametrize(
    "begun",
    [CONTENT[:300_000], b"x" * 300_000, b"x" * len(CONTENT), b"x" * 2_000_000],
    ids=["half", "of another", "another", "longer"],
)
def test_what_a_cut_run_left_ends_in_the_right_bytes_at_the_latest_in_the_next_run(
    host: Downloads, begun: bytes
) -> None:
    host.begun(begun)
    host.run()
    code, said = host.run()
    assert code == 0, said
    assert host.target.read_bytes() == CONTENT


def test_a_server_without_ranges_is_asked_for_the_whole(host: Downloads) -> None:
    host.begun(CONTENT[:300_000])
    host.fault(no_range=True)
    assert host.run()[0] == 0
    assert host.target.read_bytes() == CONTENT


def test_the_next_source_is_asked_where_the_first_has_it_not(host: Downloads) -> None:
    code, said = host.run(f"{host.url}-not", host.url)
    assert code == 0, said
    assert "404" in said


def test_other_bytes_are_told_and_never_put_in_place(host: Downloads) -> None:
    host.fault(corrupt="file:5")
    code, said = host.run()
    assert code == 1
    assert f"not the pinned {SHA256}" in said and said.splitlines()[-1] == HINT
    assert not host.target.exists() and not Path(f"{host.target}.part").exists()


def test_what_has_come_is_kept_where_the_source_fails_for_good(host: Downloads) -> None:
    host.begun(CONTENT[:300_000])
    host.fault(status=503)
    assert host.run()[0] == 1
    assert Path(f"{host.target}.part").stat().st_size == 300_000


def test_curl_is_asked_for_nothing_that_the_oldest_systems_have_not() -> None:
    """RHEL 8 has curl 7.61, Ubuntu 20.04 has 7.68; the options are those of the manual page of 7.52."""
    known = {
        *("fail", "silent", "show-error", "location", "connect-timeout", "speed-limit", "speed-time"),
        *("continue-at", "write-out", "output", "noproxy", "retry", "retry-delay", "retry-connrefused"),
        *("request", "header", "data", "max-time", "config"),
    }
    scripts = [
        download.script(["https://host/file"], SHA256, "/file", HINT),
        render("bundle/check.sh"),
        render("ollama/ollama_models.sh"),
        render("ollama/wait_until_ready.sh"),
    ]
    for script in scripts:
        for call in re.findall(r"\bcurl (--(?:[^|;)\n]|\\\n)*)", script):
            assert set(re.findall(r"--([a-z-]+)", call)) <= known, call
