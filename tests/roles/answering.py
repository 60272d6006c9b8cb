"""A pytest plugin for `tests/verify`: its hosts answer with texts, and nothing is connected to.

No host answers before all are asked, so that a run which asks them one after another finds none in order.

    pytest -p tests.roles.answering tests/verify --inventory INVENTORY

$BRINGUP_TEST_ANSWERS names a JSON file: host -> [what the probe prints, what the collection prints];
null stands for one that cannot be reached.
$BRINGUP_TEST_TRIPS names one that is written: host -> how often it was asked.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

WAIT_SECONDS = 30


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Before the first host is considered; pyinfra may be imported by then."""
    from tests.verify import connection, fleet

    trips: dict[str, int] = {}

    def write_trips() -> None:
        Path(os.environ["BRINGUP_TEST_TRIPS"]).write_text(json.dumps(trips))

    session.config.add_cleanup(write_trips)
    told = json.loads(Path(os.environ["BRINGUP_TEST_ANSWERS"]).read_text())
    answers: dict[str, tuple[str, str]] = {name: texts for name, texts in told.items() if texts}

    def connect(host: Any) -> Any:
        if host.name not in answers:
            raise connection.UnreachableError(f"{host.name}: cannot be reached. Switch it on.")
        probe, collected = answers[host.name]

        def answer(text: str) -> Any:
            trips[host.name] = trips.get(host.name, 0) + 1
            with gevent.Timeout(WAIT_SECONDS, OSError(f"only {len(trips)} hosts are asked at once")):
                while len(trips) < len(answers) or min(trips.values()) < trips[host.name]:
                    gevent.sleep(0.01)
            return SimpleNamespace(failed=False, stdout=text, stderr="", rc=0)

        backend = SimpleNamespace(pyinfra_host=SimpleNamespace(disconnect=lambda: None))
        return SimpleNamespace(
            run=lambda _: answer(probe), collect=lambda: answer(collected), backend=backend
        )

    def run_with_input(host: Any, script: str, line: str) -> connection.Answer:
        return connection.Answer(host.collect().stdout, "", 0)

    vars(fleet).update(connect=connect, run_with_input=run_with_input)
