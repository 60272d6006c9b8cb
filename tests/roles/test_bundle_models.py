"""A model that is in no table, in a bundle that its host does not have yet: whoever has it is asked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ops.model_facts import HEADERS
from plan import lock
from plan.model_facts import FILE
from plan.seen import Seen
from tests.lab.hubs import chat_model
from tests.lab.hubs.chat_model import NAME
from tests.plan.locks import GPU, locked
from tests.roles.fleet import Answer, FakeHost, deploy
from tests.roles.test_bundle import HELD, MEDIA, SYSTEM, with_address

COMMIT = "c" * 40
SERVED: dict[str, Any] = {"serve": {"chat": {"model": NAME}}}


def held(*hosts: str) -> str:
    """A lock of hosts that serve the model."""
    said = {"serve": {"chat": {"model": NAME, "max_model_len": 512}}}
    made = locked(*(Seen(f"@fake/{host}", said, GPU) for host in hosts)).lock
    models = {name: model.model_copy(update={"commit": COMMIT}) for name, model in made.model.items()}
    entries = {name: host.model_copy(update={"packages": SYSTEM}) for name, host in made.hosts.items()}
    update = {"model": models, "hosts": entries, "packages": HELD.packages}
    return lock.render(made.model_copy(update=update), "fleet.py")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    chat_model.write_model(tmp_path / "models" / NAME / COMMIT, COMMIT)
    return tmp_path / "models"


def test_on_the_operators_machine_it_is_read_there(models: Path) -> None:
    data = SERVED | {"sources": {"bundle": f"operator:{models.parent}"}}
    run = deploy(FakeHost("gpu", GPU, data), lock=held("gpu"))
    assert "refused" not in run.output and "memory was not checked" not in run.output
    # the rest of the bundle is not there
    assert f"bundle: {models.parent}: No such file or directory" in run.output


def test_on_the_host_that_serves_the_bundle_it_is_read_there_before_it_serves(models: Path) -> None:
    script = HEADERS.format(folder=models / NAME, commit=COMMIT, first=8, after=9, most=10**8)
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    data = SERVED | {"sources": {"bundle": MEDIA}, "bundle": {"serve_from": "@fake/gpu"}}
    asked = Answer(f"cd {MEDIA}/models/{NAME} 2>/dev/null", said)
    run = deploy(
        FakeHost("gpu", with_address("10.1.0.9"), data | {"ssh_hostname": "10.1.0.9"}, [asked]),
        FakeHost("other", GPU, data | {"ssh_hostname": "10.1.0.10"}),
        lock=held("gpu", "other"),
    )
    assert run.code == 0, run.output
    facts = json.loads(run.files("other")[FILE])[f"{NAME}@master"]
    assert facts and facts["commit"] == COMMIT
