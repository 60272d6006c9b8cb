"""What the readiness check takes for an answer, asked of a real HTTP server."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ops.render import TEMPLATES

PROGRAM = TEMPLATES / "vllm" / "wait_until_ready.py"


@contextmanager
def server(text: str, pieces: tuple[str, ...] = ()) -> Iterator[str]:
    """A server that is healthy and says this to every question, and these pieces to who wants a stream."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({})

        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if pieces and question.get("stream"):
                self.stream()
                return
            self.reply({"choices": [{"message": {"content": text}}]})

        def stream(self) -> None:
            self.send_response(200)
            self.end_headers()
            for piece in pieces:
                time.sleep(0.05)
                self.wfile.write(f"data: {piece}\n\n".encode())
                self.wfile.flush()

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


def test_how_fast_the_first_answer_came_is_told_where_it_can_be() -> None:
    words = [json.dumps({"choices": [{"text": text}]}) for text in ("", "服", "务", "正", "常")]
    with server("Hi", pieces=(*words, "[DONE]")) as url:
        done = check(url)
    assert done.returncode == 0
    found = re.fullmatch(
        r"chat answers: first token after ([\d.]+) ms, then ([\d.]+) tokens per second\n", done.stdout
    )
    assert found, done.stdout
    # the empty piece counts for nothing; four that come 50 ms apart
    assert 80 < float(found[1]) < 2000 and 1 < float(found[2]) < 25


@pytest.mark.parametrize("pieces", [('{"choices": [{"text": "a"}]}',), ('{"error": "none"}',), ("{",)])
def test_who_cannot_be_timed_serves_all_the_same(pieces: tuple[str, ...]) -> None:
    with server("Hi", pieces) as url:
        done = check(url)
    assert (done.returncode, done.stdout) == (0, "chat answers\n")


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
