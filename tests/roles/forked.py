"""pyinfra imported once and forked for each deploy: its imports take longer than a deploy to fake hosts.

The server reads a JSON request a line and answers with an exit code a line. It is pyinfra as the command
starts it, patched by gevent when it is imported, and forks by the original calls before anything ran.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
# What a deploy imports before its first operation.
PRELOADED = ("pyinfra_cli.main", "pyinfra.connectors.fake", "ops.planning", "roles", "tests.roles.fleet")


def run(arguments: Sequence[str], environment: Mapping[str, str], timeout_seconds: float) -> tuple[int, str]:
    """Exit code and output of one `tests.roles.fleet` deploy."""
    with tempfile.NamedTemporaryFile("r") as output:
        server = _server()
        assert server.stdin and server.stdout
        request = {"arguments": list(arguments), "environment": dict(environment), "output": output.name}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        ready, _, _ = select.select([server.stdout], [], [], timeout_seconds)
        if not ready:
            server.kill()
            _server.cache_clear()
            raise TimeoutError(f"no end after {timeout_seconds:.0f} s:\n{output.read()}")
        return int(server.stdout.readline()), output.read()


@cache
def _server() -> subprocess.Popen[str]:
    """This process's own; it ends when nobody can ask it any more."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.roles.forked"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def serve() -> None:
    """Answers requests until standard input ends."""
    for name in PRELOADED:
        __import__(name)
    from gevent import monkey

    fork, wait = monkey.get_original("os", "fork"), monkey.get_original("os", "waitpid")
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        process = fork()
        if process == 0:
            _deploy(request)
        _, status = wait(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _deploy(request: Mapping[str, Any]) -> None:
    """In the forked process: becomes the command, and ends."""
    code = 1
    try:
        for descriptor, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, request["output"], os.O_WRONLY | os.O_APPEND),
        ):
            opened = os.open(path, flags)
            os.dup2(opened, descriptor)
            os.close(opened)
        os.dup2(1, 2)
        os.environ.clear()
        os.environ.update(request["environment"])
        from tests.roles import fleet

        fleet.child(request["arguments"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
