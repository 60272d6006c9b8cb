"""A stop waits for the answers under way, and for nothing else."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from ops.render import TEMPLATES

PROGRAM = TEMPLATES / "ollama" / "let_ollama_finish.sh"
pytestmark = pytest.mark.skipif(not shutil.which("ss"), reason="no ss here")


@pytest.fixture
def connection() -> Iterator[tuple[int, socket.socket, socket.socket]]:
    """The port of a server, and both ends of one connection to it: the server's, the client's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as end:
            yield port, end, client


def start(port: int, seconds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(["sh", PROGRAM, str(port), str(seconds)], stdout=subprocess.PIPE, text=True)


def asked(end: socket.socket, client: socket.socket) -> None:
    client.sendall(b"POST /v1/chat/completions HTTP/1.1")
    end.recv(100)


def test_a_question_without_its_answer_is_waited_for_until_it_is_answered(
    connection: tuple[int, socket.socket, socket.socket],
) -> None:
    port, end, client = connection
    asked(end, client)
    waiting = start(port, 60)
    time.sleep(3)
    assert waiting.poll() is None
    end.sendall(b"HTTP/1.1 200 OK")
    end.close()
    assert waiting.wait(30) == 0


def test_an_answer_that_does_not_end_is_cut_off_in_time_and_said(
    connection: tuple[int, socket.socket, socket.socket],
) -> None:
    port, end, client = connection
    asked(end, client)
    said, _ = start(port, 1).communicate(timeout=30)
    assert said.splitlines()[-1] == "1 requests did not end in time: they are cut off"


def test_a_connection_that_is_only_kept_open_is_not_waited_for(
    connection: tuple[int, socket.socket, socket.socket],
) -> None:
    port, end, client = connection
    asked(end, client)
    time.sleep(0.1)
    end.sendall(b"HTTP/1.1 200 OK")
    client.recv(100)
    time.sleep(2.5)
    said, _ = start(port, 60).communicate(timeout=30)
    assert said == ""
