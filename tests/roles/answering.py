"""A pytest plugin for `tests/verify`: its hosts answer with texts, and nothing is connected to.

    pytest -p tests.roles.answering tests/verify --inventory INVENTORY

$BRINGUP_TEST_ANSWERS names a JSON file: host -> [what the probe prints, what the collection prints].
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Before the first host is considered; pyinfra may be imported by then."""
    from tests.verify import connection, fleet

    answers: dict[str, tuple[str, str]] = json.loads(Path(os.environ["BRINGUP_TEST_ANSWERS"]).read_text())

    def connect(host: Any) -> Any:
        probe, collected = answers[host.name]
        answer = SimpleNamespace(failed=False, stdout=probe, stderr="", rc=0)
        backend = SimpleNamespace(pyinfra_host=SimpleNamespace(disconnect=lambda: None), collected=collected)
        return SimpleNamespace(run=lambda _: answer, backend=backend)

    def run_with_input(host: Any, script: str, line: str) -> connection.Answer:
        return connection.Answer(host.backend.collected, "", 0)

    vars(fleet).update(connect=connect, run_with_input=run_with_input)
