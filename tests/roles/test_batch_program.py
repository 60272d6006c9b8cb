"""The batch program: every request answered once, whatever is cut. A stand-in answers in place of vLLM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from roles.vllm.batch import programs

# A server that says what it was asked, notes it, and refuses or dies when it is told to.
SERVER = """
import http.server, json, os, sys, time
port, log, pause = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def do_GET(self): self.say(200, b"")
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(log, "a") as file: file.write(body["prompt"] + "\\n")
        if body["prompt"] == "die": os._exit(0)
        time.sleep(pause)
        status = 400 if body["prompt"] == "bad" else 200
        said = {"id": "x", "choices": [{"text": body["prompt"]}], "model": body["model"]}
        self.say(status, json.dumps({"error": {"message": "no"}} if status == 400 else said).encode())
    def say(self, status, data):
        self.send_response(status); self.send_header("Content-Length", str(len(data))); self.end_headers()
        self.wfile.write(data)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Batch:
    """One batch in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output, self.log = folder, folder / "answers.jsonl", folder / "asked"
        self.log.touch()
        for program in programs():
            (folder / program.path.rpartition("/")[2]).write_text(program.text)
        (folder / "server.py").write_text(SERVER)

    def write(self, *prompts: str, **changed: Any) -> None:
        lines = [
            {"custom_id": f"r{n}", "method": "POST", "url": "/v1/completions", "body": {"prompt": prompt}}
            for n, prompt in enumerate(prompts)
        ]
        (self.folder / "in.jsonl").write_text("".join(f"{json.dumps(line | changed)}\n" for line in lines))

    def start(self, pause: float = 0.0, server: str | None = None) -> subprocess.Popen[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        options = ["--input", "in.jsonl", "--output", str(self.output), "--model", "m", "--port", port]
        options += ["--start-seconds", "60", "--concurrency", "4", "--"]
        command = [server] if server else [sys.executable, "server.py", port, str(self.log), str(pause)]
        return subprocess.Popen(
            [sys.executable, "-B", "run.py", *options, *command],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, server: str | None = None) -> tuple[int, str]:
        process = self.start(server=server)
        out, err = process.communicate(timeout=120)
        return process.returncode, out + err

    def answers(self) -> dict[str, dict[str, Any]]:
        """custom_id -> its line; each is there once, and whole."""
        lines = [json.loads(line) for line in self.output.read_text().splitlines()]
        found = {line["custom_id"]: line for line in lines}
        assert len(found) == len(lines)
        return found

    def asked(self) -> list[str]:
        return self.log.read_text().split()


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


def test_every_request_has_its_answer_and_a_refused_one_says_why(batch: Batch) -> None:
    batch.write("one", "bad", "three")
    code, said = batch.run()
    assert (code, "3 of 3 requests answered, 1 with an error" in said) == (0, True)
    found = batch.answers()
    assert found["r0"]["response"]["body"] == {"id": "x", "choices": [{"text": "one"}], "model": "m"}
    assert (found["r0"]["response"]["status_code"], found["r0"]["error"]) == (200, None)
    assert (found["r1"]["response"]["status_code"], found["r1"]["error"]) == (400, {"message": "no"})


def test_what_was_killed_goes_on_and_asks_nothing_twice_that_has_its_answer(batch: Batch) -> None:
    prompts = [f"p{number}" for number in range(60)]
    batch.write(*prompts)
    process = batch.start(pause=0.2)
    deadline = time.monotonic() + 60
    while not batch.output.exists() or batch.output.read_bytes().count(b"\n") < 8:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = batch.output.read_bytes()
    answered = {
        json.loads(line)["custom_id"] for line in kept.splitlines(keepends=True) if line.endswith(b"\n")
    }
    assert 8 <= len(answered) < 60
    # a power cut leaves half a line, or a block of nothing
    batch.output.write_bytes(kept + b"\0" * 512 + b'{"id": "torn", "custom_id": "r5')
    assert batch.run()[0] == 0
    assert set(batch.answers()) == {f"r{number}" for number in range(60)}
    asked = batch.asked()
    assert [asked.count(f"p{one[1:]}") for one in sorted(answered)] == [1] * len(answered)


def test_when_nothing_is_left_no_server_is_started(batch: Batch) -> None:
    batch.write("one")
    assert batch.run()[0] == 0
    assert batch.run(server="false") == (0, f"1 of 1 requests answered, 0 with an error: {batch.output}\n")


def test_more_requests_are_added_to_what_is_answered(batch: Batch) -> None:
    batch.write("one")
    assert batch.run()[0] == 0
    batch.write("one", "two")
    assert batch.run()[0] == 0
    assert (set(batch.answers()), batch.asked()) == ({"r0", "r1"}, ["one", "two"])


def test_a_server_that_ends_fails_the_run_and_what_is_answered_stays(batch: Batch) -> None:
    batch.write("one", *["die"] * 4)
    code, said = batch.run()
    assert code == 1
    assert "vLLM" in said
    assert set(batch.answers()) <= {"r0"}


def test_a_file_of_something_else_is_left_as_it_is(batch: Batch) -> None:
    batch.write("one")
    batch.output.write_text('{"custom_id": "r0", "url": "/v1/completions", "body": {}}\nmy own lines\n')
    before = batch.output.read_bytes()
    code, said = batch.run()
    assert code == 2
    assert "is there, and no file of answers. Name another output." in said
    assert batch.output.read_bytes() == before
    assert not list(batch.folder.glob(".*.mended"))


def test_another_request_of_the_same_name_is_refused(batch: Batch) -> None:
    batch.write("one")
    assert batch.run()[0] == 0
    before = batch.output.read_bytes()
    batch.write("another")
    code, said = batch.run(server="false")
    assert code == 2
    assert "has the answer to another request named 'r0'. Name another output" in said
    assert batch.output.read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"custom_id": "same"}, "line 2: custom_id 'same' is there twice. Name it otherwise."),
        ({"custom_id": 1}, "line 1: has no custom_id."),
        ({"method": "GET"}, "line 1: method 'GET' is not answered. Write POST."),
        ({"url": "/v1/files"}, "line 1: url '/v1/files' is not answered."),
        ({"body": []}, "line 1: has no body."),
    ],
)
def test_lines_that_are_no_requests_are_refused_before_anything_starts(
    batch: Batch, changed: dict[str, Any], fact: str
) -> None:
    batch.write("one", "two", **changed)
    code, said = batch.run(server="false")
    assert code == 2
    assert fact in said
    assert not batch.output.exists()
