"""The front as the real nginx runs it: who gets in, how often, from where, and what the engine sees."""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from plan.gateway import CACHE, DIRECTORY, SWITCHES, Front
from roles.gateway import deploy as gateway
from tests.lab import nginx
from tests.plan.test_certificates import made
from tests.roles.test_gateway import KEY, planned

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as nginx runs as nobody"),
]

NOBODY = 65534
CHAT = "/v1/chat/completions"
LOG = "syslog:server=unix:/dev/log,nohostname,tag=bringup_gateway"


class Engine(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked; stands for vLLM behind the front."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        told = {
            "port": self.connection.getsockname()[1],
            "path": self.path,
            "headers": dict(self.headers),
            "body": self.rfile.read(length).decode(),
        }
        text = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = _answer  # noqa: N815, named by the standard library

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def engine() -> Iterator[int]:
    """The port of an engine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Running:
    """A front at work: its port, its engine's, its files."""

    port: int
    engine: int
    folder: Path
    process: subprocess.Popen[bytes]
    tls: bool

    def ask(
        self,
        path: str = CHAT,
        key: str = KEY,
        source: str = "127.0.0.1",
        method: str = "POST",
        content: bytes | None = b"{}",
        trust: ssl.SSLContext | bool = False,
    ) -> httpx.Response:
        """One request, from an address of this computer's loopback."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        transport = httpx.HTTPTransport(local_address=source, verify=trust)
        with httpx.Client(transport=transport, timeout=30) as client:
            url = f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}{path}"
            return client.request(method, url, headers=headers, content=content)

    def reload(self) -> None:
        """As the unit does it; back when the workers of before have ended."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        before = set(children.read_text().split())
        self.process.send_signal(signal.SIGHUP)
        wait(lambda: not before & set(children.read_text().split()))


def wait(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nginx.program(tmp_path_factory.mktemp("nginx"))


@contextmanager
def running(program: Path, pair: tuple[str, str] | None = None, **access: Any) -> Iterator[Running]:
    """nginx with the product's configuration, its addresses and directories moved to this computer's."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        inner, port = stack.enter_context(engine()), free_port()
        plan = planned(**access | {"tls": "on" if pair else "off"})
        fronts = tuple(moved(front, port, inner) for front in plan.fronts)
        plan = dataclasses.replace(plan, fronts=fronts, certificate="given" if pair else "none")
        text = gateway.configuration_text(plan, KEY)
        for path, there in ((DIRECTORY, "etc"), (CACHE, "cache"), (SWITCHES, "run")):
            (folder / there).mkdir()
            text = text.replace(path, str(folder / there))
        text = text.replace(LOG, str(folder / "refused.log"))
        (folder / "etc/nginx.conf").write_text(f"daemon off;\n{text}")
        for name, pem in zip(("given-certificate.pem", "given-key.pem"), pair or (), strict=False):
            (folder / "etc" / name).write_text(pem)
        binary = shutil.copy(program, folder / "nginx")
        for made_here in (folder, *folder.rglob("*")):
            os.chown(made_here, NOBODY, NOBODY)
        process = subprocess.Popen(
            [binary, "-c", folder / "etc/nginx.conf"],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            stderr=(folder / "errors").open("wb"),
        )
        try:
            wait(lambda: (folder / "cache/nginx.pid").exists() and _listens(port))
            yield Running(port, inner, folder, process, bool(pair))
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(timeout=30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def moved(front: Front, port: int, inner: int) -> Front:
    return dataclasses.replace(front, listen=f"127.0.0.1:{port}", upstream=f"127.0.0.1:{inner}")


@pytest.fixture(scope="module")
def front(program: Path) -> Iterator[Running]:
    with running(program, monitoring=["127.0.0.3"], max_body_mib=1) as started:
        yield started


def test_who_has_the_key_reaches_the_engine_which_never_sees_it(front: Running) -> None:
    seen = front.ask(f"{CHAT}?a=1&b=2").json()
    assert (seen["path"], seen["port"], seen["body"]) == (f"{CHAT}?a=1&b=2", front.engine, "{}")
    assert KEY not in json.dumps(seen)
    assert seen["headers"]["X-Forwarded-For"] == "127.0.0.1"


@pytest.mark.parametrize("key", ["", "x" * 32, KEY[:-1], f"{KEY}x", KEY.upper()])
def test_who_has_another_key_does_not(front: Running, key: str) -> None:
    answer = front.ask(key=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/docs", f"{CHAT}/", f"{CHAT}/../../metrics", "/v1/load_lora_adapter"]
)
def test_what_is_not_listed_is_not_there_with_the_key_either(front: Running, path: str) -> None:
    assert front.ask(path).status_code == 404


def test_another_method_and_a_large_body_are_refused_in_the_form_that_clients_read(front: Running) -> None:
    assert front.ask(method="GET", content=None).json()["error"]["code"] == "method_not_allowed"
    assert front.ask(content=b"x" * 2_000_000).json()["error"]["code"] == "too_large"


def test_only_monitoring_reads_metrics_and_needs_no_key(front: Running) -> None:
    assert front.ask("/metrics", key="", source="127.0.0.3", method="GET").json()["path"] == "/metrics"
    assert front.ask("/metrics", method="GET").status_code == 404
    assert front.ask(key="", source="127.0.0.3").status_code == 401


def test_refusals_are_logged_without_the_key(front: Running) -> None:
    front.ask("/none", source="127.0.0.9")
    log = front.folder / "refused.log"
    wait(lambda: "127.0.0.9 POST /none 404" in log.read_text())
    assert KEY not in log.read_text() + (front.folder / "errors").read_text()


def test_nobody_but_the_allowed_clients_is_answered(program: Path) -> None:
    with running(program, clients=["127.0.0.2", "127.0.1.0/24"]) as front:
        assert front.ask(source="127.0.0.2").status_code == 200
        assert front.ask(source="127.0.1.77").status_code == 200
        assert front.ask(source="127.0.0.1").status_code == 404


def test_who_asks_too_often_is_told_to_wait_and_others_are_not(program: Path) -> None:
    with running(program, requests_per_second=2) as front:
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: front.ask(), range(40)))
        often = [answer for answer in answers if answer.status_code == 429]
        assert len(often) > 20
        assert {answer.status_code for answer in answers} == {200, 429}
        assert often[0].headers["Retry-After"] == "1"
        assert often[0].json()["error"]["code"] == "rate_limit_exceeded"
        assert front.ask(source="127.0.0.2").status_code == 200


def test_a_given_certificate_is_what_clients_see(program: Path) -> None:
    certificate, key = made(100_000)
    with running(program, pair=(certificate, key)) as front:
        shown = ssl.get_server_certificate(("127.0.0.1", front.port))
        assert shown.strip() == certificate.strip()
        assert front.ask().status_code == 200
        with pytest.raises(httpx.HTTPError):
            front.ask(trust=ssl.create_default_context())


def test_the_front_is_turned_to_a_second_server_and_back_without_a_refused_request(program: Path) -> None:
    with running(program) as front, engine() as second:
        switch, stop, codes = front.folder / "run/chat.conf", threading.Event(), []

        def ask_on() -> None:
            while not stop.is_set():
                codes.append(front.ask().status_code)

        asking = threading.Thread(target=ask_on)
        asking.start()
        switch.write_text(f"server 127.0.0.1:{second} weight=65535 max_fails=0;\n")
        front.reload()
        turned = {front.ask().json()["port"] for _ in range(20)}
        switch.unlink()
        front.reload()
        back = {front.ask().json()["port"] for _ in range(20)}
        stop.set()
        asking.join()
        assert (turned, back) == ({second}, {front.engine})
        assert set(codes) == {200}


def test_a_front_whose_second_server_is_gone_asks_the_first(program: Path) -> None:
    with running(program) as front:
        (front.folder / "run/chat.conf").write_text(
            f"server 127.0.0.1:{free_port()} weight=65535 max_fails=0;\n"
        )
        front.reload()
        assert {front.ask().json()["port"] for _ in range(8)} == {front.engine}


def test_while_nothing_answers_clients_are_told_to_come_again(program: Path) -> None:
    with running(program) as front:
        (front.folder / "run/chat.conf").write_text("")
        conf = front.folder / "etc/nginx.conf"
        conf.write_text(conf.read_text().replace(f"127.0.0.1:{front.engine}", f"127.0.0.1:{free_port()}"))
        front.reload()
        answer = front.ask()
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
