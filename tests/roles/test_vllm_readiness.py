"""What the readiness check takes for an answer, asked of a real HTTP server."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ops.render import TEMPLATES

PROGRAM = TEMPLATES / "vllm" / "wait_until_ready.py"


@contextmanager
def server(text: str) -> Iterator[str]:
    """A server that is healthy and says this to every question."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply({"choices": [{"message": {"content": text}}]})

        def reply(self, body: object) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()


def check(url: str, seconds: int = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), url, "chat", str(seconds)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("text", ["你好！", "Hi", "<think>\n", "3"])
def test_an_answer_that_can_be_read_is_one(text: str) -> None:
    with server(text) as url:
        assert (check(url).returncode, check(url).stdout) == (0, "chat answers\n")


# "!<!<!<!<" is what vLLM 0.32.0 said with weights of which all but the first rows were zeroed
@pytest.mark.parametrize("text", ["", " \n", "!!!!!!!!", "!<!<!<!<"])
def test_what_damaged_weights_say_is_none_though_the_server_is_healthy(text: str) -> None:
    with server(text) as url:
        done = check(url)
    assert done.returncode == 1
    assert "chat answered with nothing that can be read" in done.stderr


def test_who_does_not_answer_in_time_is_not_ready() -> None:
    done = check("http://127.0.0.1:9", seconds=1)
    assert done.returncode == 1
    assert "did not answer within 1 s" in done.stderr


@pytest.mark.parametrize(
    "program",
    [[sys.executable, str(PROGRAM)], ["sh", str(TEMPLATES / "ollama" / "wait_until_ready.sh")]],
    ids=["vllm", "ollama"],
)
def test_a_server_that_has_ended_is_not_waited_for(program: list[str]) -> None:
    """systemd itself waits for the check, even when the process that it checks is gone."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    done = subprocess.run(
        [*program, "http://127.0.0.1:9", "chat", "60"],
        env=os.environ | {"MAINPID": str(ended.pid)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "the server ended before it answered" in done.stdout + done.stderr
