"""Batches: files of requests that a vLLM of their own answers, planned beside the services."""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from plan import batch_lines, batch_settings
from plan.answer import Decision
from plan.errors import SettingsError
from plan.host import BatchPlan
from plan.models_host import Pins
from plan.probe import Probe
from plan.seats import Seats
from plan.sections import Service, Settings
from plan.services import Reach, plan_service

# In a network namespace of its own, where nothing else is.
REACH = Reach(
    listen="127.0.0.1",
    address="127.0.0.1",
    port=8000,
    inner_address="127.0.0.1",
    inner_port=8000,
    fronted=False,
    tls=False,
)


def plan_batches(
    settings: Settings,
    batches: Mapping[str, Service],
    decisions: Mapping[str, Decision],
    seats: Seats,
    probe: Probe,
    pins: Pins,
) -> Iterator[BatchPlan]:
    """The plan of every batch, in order of names.

    Raises:
        SettingsError: a file of the operator's holds no requests.
    """
    for name, service in sorted(batches.items()):
        wanted = service.batch.input or ""
        source = wanted.removeprefix("operator:") if wanted.startswith("operator:") else None
        yield BatchPlan(
            service=plan_service(name, service, decisions[name], settings, seats, probe, pins, REACH),
            input=_sent(name, source) if source else wanted.removeprefix("host:"),
            output=batch_settings.output(name, service),
            concurrency=service.batch.concurrency,
            wait=service.batch.wait,
            source=source,
        )


def _sent(name: str, source: str) -> str:
    """Where the operator's file lies on the host: other requests are another file."""
    where, file = f"serve.{name}.batch.input: {source}", Path(source).expanduser()
    try:
        stat = file.stat()
        digest = _digest(file, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise SettingsError([f"{where}: {error.strerror}. Name a file of this machine."]) from None
    except ValueError as error:
        raise SettingsError([f"{where}: {error}."]) from None
    return f"{batch_settings.DIRECTORY}/{name}/input/{digest[:16]}.jsonl"


@functools.lru_cache(maxsize=16)
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    """The sha256 of a file whose lines are all requests; read once for the whole fleet.

    Raises:
        ValueError: a line is none, or there are none at all.
    """
    with file.open("rb") as stream:
        if not sum(1 for _ in batch_lines.requests(stream)):
            raise ValueError("holds no requests. Write one object a line")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
