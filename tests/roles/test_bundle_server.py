"""The bundle's server as the real nginx runs it: who may fetch, what, and what a flipped bit does."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ops.render import render
from plan.bundle_plan import BundleServer
from tests.lab import nginx
from tests.roles.test_bundle import WANTED, check, made_bundle

pytestmark = pytest.mark.lab

# every address of 127.0.0.0/8 is this computer's own
SERVER, HOST, STRANGER = "127.0.0.1", "127.0.0.10", "127.0.0.66"
WHEEL = "wheels/a%20b%2B1.whl"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nginx.program(tmp_path_factory.mktemp("nginx"))


@pytest.fixture
def root() -> Iterator[Path]:
    """A bundle where others may read, unlike pytest's own folders: nginx has no rights of its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield made_bundle(Path(folder) / "bundle")


@pytest.fixture
def url(program: Path, root: Path, tmp_path: Path) -> Iterator[str]:
    """The bundle, served to HOST."""
    with socket.socket() as probe:
        probe.bind((SERVER, 0))
        port = probe.getsockname()[1]
    run = tmp_path / "run-nginx"
    run.mkdir()
    text = render("bundle/nginx.conf.j2", server=BundleServer(str(root), SERVER, port, (HOST,)))
    configuration = run / "nginx.conf"
    configuration.write_text(text.replace("/run/bringup-bundle-server", str(run)))
    words = [str(program), "-e", "stderr", "-c", str(configuration), "-g", "daemon off;"]
    process = subprocess.Popen(words)
    try:
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex((SERVER, port)):
            assert process.poll() is None, "nginx did not start"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://{SERVER}:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def asked(address: str, url: str, method: str = "GET") -> httpx.Response:
    """What the server answers to somebody at an address."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as client:
        return client.request(method, url)


def test_hosts_of_the_inventory_may_fetch_and_nobody_else(url: str) -> None:
    answer = asked(HOST, f"{url}/{WHEEL}")
    assert (answer.status_code, answer.content) == (200, b"one")
    assert asked(SERVER, f"{url}/SHA256SUMS").is_success
    assert {asked(STRANGER, f"{url}/{path}").status_code for path in (WHEEL, "SHA256SUMS", "")} == {403}


def test_nothing_is_listed_written_or_had_from_beside_the_bundle(url: str, root: Path) -> None:
    (root.parent / "secret").write_text("secret")
    (root / "wheels" / "link").symlink_to(root.parent / "secret")
    for path in ("", "wheels/", "wheels/link", "../secret", "%2e%2e/secret", "wheels/..%2f..%2fsecret"):
        assert asked(HOST, f"{url}/{path}").status_code in (400, 403, 404), path
    assert {asked(HOST, f"{url}/{WHEEL}", method).status_code for method in ("PUT", "POST", "DELETE")} == {
        403
    }


def test_a_host_takes_what_is_right_and_refuses_a_flipped_bit_by_name(
    url: str, root: Path, tmp_path: Path
) -> None:
    staged = tmp_path / "staged"
    assert check(staged, *WANTED, url=url)[0] == 0
    assert (staged / "wheels/a b+1.whl").read_bytes() == b"one"
    damaged = root / "packages/s/c.deb"
    damaged.write_bytes(bytes([damaged.read_bytes()[0] ^ 1]) + damaged.read_bytes()[1:])
    (staged / "packages/s/c.deb").unlink()
    code, said = check(staged, *WANTED, url=url)
    assert code == 1
    assert f"bundle: {url}/packages/s/c.deb is damaged: it has other bytes than its index says" in said
    assert not (staged / "packages/s/c.deb").exists()


@pytest.mark.parametrize("begun", ["o", "x", "xxx", "much more"])
def test_what_a_cut_run_left_is_gone_on_with_unless_it_was_another_file(
    begun: str, url: str, tmp_path: Path
) -> None:
    part = tmp_path / "staged" / "wheels" / "a b+1.whl.part"
    part.parent.mkdir(parents=True)
    part.write_text(begun)
    code, said = check(tmp_path / "staged", *WANTED, url=url)
    assert code == 0, said
    assert part.with_suffix("").read_bytes() == b"one"


def test_the_whole_bundle_is_read_before_it_is_served(root: Path) -> None:
    code, said = check(root, "all")
    assert code == 0, said
    (root / "conda/noarch/b.conda").write_bytes(b"twn")
    code, said = check(root, "all")
    assert code == 1 and f"{root}/conda/noarch/b.conda is damaged" in said


def test_a_bundle_that_the_server_could_not_read_is_refused_before_it_starts(root: Path) -> None:
    (root / "conda/noarch").chmod(0o700)
    code, said = check(root, "all")
    assert code == 1
    assert f"bundle: {root} cannot be read by the server that is to serve it (./conda/noarch)" in said
    (root / "conda/noarch").chmod(0o755)
    root.parent.chmod(0o700)
    assert check(root, "all")[0] == 1
