"""Answers a file of requests with a vLLM of its own, and goes on where it was cut. Run by systemd.

    run.py --input FILE --output FILE --model NAME --port N --start-seconds N --concurrency N -- vllm ...

An answer counts when its whole line is in the output. At the start a line that was torn is thrown away; what
has its answer is not asked again, and when nothing is left vLLM is not even started.
"""

import argparse
import concurrent.futures
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lines import Answered, Request, answer, answered, requests

ADDRESS = "127.0.0.1"
# Exit code for what another try does not change.
REFUSED = 2
TELL_SECONDS, SYNC_SECONDS = 2.0, 1.0
TRIES, PAUSE_SECONDS = 4, 0.5
ANSWER_SECONDS = 3600
BROKEN = 500


class ServerEndedError(Exception):
    """vLLM has ended, or does not answer any more."""


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        wanted = {request.custom_id: request.digest for request in read(options.input)}
        done = mend(options.output, wanted)
    except (OSError, ValueError) as error:
        print(f"batch: {error}", file=sys.stderr, flush=True)
        return REFUSED
    batch = Batch(options, len(wanted), done)
    if len(done) < len(wanted):
        batch.answer_rest()
    batch.say(batch.summary)
    print(batch.summary, flush=True)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--start-seconds", type=float, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("server", nargs="+")
    return parser.parse_args()


def read(path: Path) -> Iterator[Request]:
    with path.open("rb") as stream:
        try:
            yield from requests(stream)
        except ValueError as error:
            raise ValueError(f"{path}: {error}.") from None


def mend(path: Path, wanted: dict[str, str]) -> dict[str, Answered]:
    """What is answered already; lines that were torn, or are there twice, go from the file."""
    done: dict[str, Answered] = {}
    if not path.exists():
        return done
    kept = path.with_name(f".{path.name}.mended")
    damaged = False
    with path.open("rb") as old, kept.open("wb") as new:
        for line in old:
            found = answered(line)
            if found is None and not done and line.endswith(b"\n"):
                kept.unlink()
                raise ValueError(f"{path}: is there, and no file of answers. Name another output.")
            if found is None or found.custom_id in done:
                damaged = True
                continue
            if wanted.get(found.custom_id, found.digest) != found.digest:
                raise ValueError(
                    f"{path}: has the answer to another request named {found.custom_id!r}. "
                    "Name another output, or remove this one."
                )
            done[found.custom_id] = found
            new.write(line)
        new.flush()
        os.fsync(new.fileno())
    if damaged:
        kept.replace(path)
        sync_directory(path.parent)
    else:
        kept.unlink()
    return {name: found for name, found in done.items() if name in wanted}


def sync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


class Batch:
    """One run over what is left."""

    def __init__(self, options: argparse.Namespace, total: int, done: dict[str, Answered]) -> None:
        self.options, self.total = options, total
        self.done = set(done)
        self.answered, self.failed = len(done), sum(not one.well for one in done.values())
        self.before, self.began, self.told, self.synced = len(done), time.monotonic(), 0.0, 0.0
        self.connections = threading.local()
        self.server: subprocess.Popen[bytes] | None = None

    @property
    def summary(self) -> str:
        counts = f"{self.answered} of {self.total} requests answered, {self.failed} with an error"
        return f"{counts}: {self.options.output}"

    def answer_rest(self) -> None:
        self.say(f"{self.answered} of {self.total} requests answered; vLLM starts")
        self.server = subprocess.Popen(self.options.server, stdin=subprocess.DEVNULL)
        try:
            self.wait_until_healthy()
            self.began = time.monotonic()
            self.ask_all()
        except ServerEndedError as error:
            sys.exit(f"batch: {error}; {self.summary}")
        finally:
            self.stop()

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + self.options.start_seconds
        while not self.healthy():
            if time.monotonic() > deadline:
                raise ServerEndedError(f"vLLM did not start within {self.options.start_seconds:.0f} s")
            time.sleep(PAUSE_SECONDS)

    def healthy(self) -> bool:
        if self.server is None or self.server.poll() is not None:
            raise ServerEndedError("vLLM has ended")
        connection = http.client.HTTPConnection(ADDRESS, self.options.port, timeout=10)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def ask_all(self) -> None:
        left = (request for request in read(self.options.input) if request.custom_id not in self.done)
        workers = concurrent.futures.ThreadPoolExecutor(self.options.concurrency)
        under_way: set[concurrent.futures.Future[bytes]] = set()
        with self.options.output.open("ab") as output:
            sync_directory(self.options.output.parent)
            try:
                while True:
                    room = 2 * self.options.concurrency - len(under_way)
                    under_way |= {workers.submit(self.ask, one) for one in itertools.islice(left, room)}
                    if not under_way:
                        break
                    ended, under_way = concurrent.futures.wait(
                        under_way, return_when=concurrent.futures.FIRST_COMPLETED
                    )
                    for one in ended:
                        self.keep(output, one.result())
            finally:
                output.flush()
                os.fsync(output.fileno())
                workers.shutdown(wait=False, cancel_futures=True)

    def keep(self, output, line: bytes) -> None:
        output.write(line)
        self.answered += 1
        found = answered(line)
        self.failed += not (found and found.well)
        now = time.monotonic()
        if now - self.synced > SYNC_SECONDS:
            output.flush()
            os.fsync(output.fileno())
            self.synced = now
        if now - self.told > TELL_SECONDS:
            self.say(self.progress(now))
            self.told = now

    def progress(self, now: float) -> str:
        rate = (self.answered - self.before) / max(now - self.began, 0.001)
        left = (self.total - self.answered) / max(rate, 0.001)
        share = 100 * self.answered // self.total
        return f"{share}% of {self.total} requests, {rate:.1f} requests/s, {left:.0f} s left"

    def ask(self, request: Request) -> bytes:
        """The line of one answer; a server that is busy or stumbles is asked again."""
        body = {"model": self.options.model} | request.body
        if body.pop("stream", False):
            body.pop("stream_options", None)
        data = json.dumps(body).encode()
        status, said = BROKEN, b""
        for attempt in range(TRIES):
            try:
                status, said = self.post(request.url, data)
                if status < BROKEN:
                    break
            except (OSError, http.client.HTTPException) as error:
                self.connections.one = None
                status, said = 0, str(error).encode()
            time.sleep(PAUSE_SECONDS * 2**attempt)
            if not self.healthy():
                raise ServerEndedError("vLLM is not healthy any more")
        if not status:
            raise ServerEndedError(f"vLLM does not answer ({said.decode(errors='replace')})")
        return answer(request, status, parsed(said))

    def post(self, path: str, data: bytes) -> tuple[int, bytes]:
        connection = getattr(self.connections, "one", None)
        if connection is None:
            connection = self.connections.one = http.client.HTTPConnection(
                ADDRESS, self.options.port, timeout=ANSWER_SECONDS
            )
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()

    def stop(self) -> None:
        if self.server is None:
            return
        self.server.terminate()
        try:
            self.server.wait(60)
        except subprocess.TimeoutExpired:
            self.server.kill()

    def say(self, text: str) -> None:
        """Shown by `systemctl status`, and by who waits."""
        address = os.environ.get("NOTIFY_SOCKET", "")
        if address.startswith("/"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.sendto(f"STATUS={text}".encode(), address)


def parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
