"""Models on two hosts: exchanged over their LAN, uploaded, mended; in order, on the hosts of the session."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.e2e.deploys import HOSTS, Run, deploy, deployed, on
from tests.lab.hubs.repository import Repository
from tests.lab.layout import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("fleet")]

SHARED, SENT, LARGE = "Lab/Shared", "Lab/Sent", "model.safetensors"
BYTES = 24 << 20


def publish(model: str, folder: Path) -> None:
    """A model with one large file and a small one, on the lab's hub."""
    (folder / LARGE).write_bytes(os.urandom(BYTES))
    (folder / "config.json").write_text("{}")
    target = Lab.from_environment().hubs / "models" / model
    published = Repository.load(target) or Repository()
    published.commit(folder, target / "objects", "Publish", 1_700_000_000 + len(published.commits))
    published.save(target)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_models(wanted: dict[str, object], *options: str) -> Run:
    run = deploy("--json", "--data", f"models={json.dumps(wanted)}", *options)
    assert run.code == 0, run.errors[-4000:]
    return run


def on_all(script: str) -> list[str]:
    return [on(host, script) for host in HOSTS]


def test_hosts_get_a_model_from_each_other_and_close_again(tmp_path: Path) -> None:
    deployed()
    publish(SHARED, tmp_path)
    log = Lab.from_environment().hubs / "requests.jsonl"
    before = len(log.read_text().splitlines())
    with_models({SHARED: {}})
    asked = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    pulled = [each for each in asked if SHARED in each["path"] and "FilePath=" in each["path"]]
    assert len({each["client"] for each in pulled}) == 1
    assert sum(each["sent_bytes"] for each in pulled) < 1.1 * BYTES
    wanted = sha256(tmp_path / LARGE)
    assert on_all(f"sha256sum /srv/models/{SHARED}/current/{LARGE} | cut -d ' ' -f 1") == [wanted] * 2
    assert on_all("nft list tables; pgrep -x aria2c; ls /run/bringup") == [""] * 2
    assert with_models({SHARED: {}}).changed() == {}


def test_a_branch_that_moved_is_followed_and_the_earlier_commit_kept(tmp_path: Path) -> None:
    first = on(HOSTS[0], f"readlink /srv/models/{SHARED}/current")
    publish(SHARED, tmp_path)
    with_models({SHARED: {}})
    now = on(HOSTS[0], f"readlink /srv/models/{SHARED}/current")
    assert now != first
    assert on_all(f"ls /srv/models/{SHARED} | wc -l") == ["3", "3"]
    with_models({SHARED: {}, "keep": 0})
    assert [set(there.split()) for there in on_all(f"ls /srv/models/{SHARED}")] == [{now, "current"}] * 2


def test_a_flipped_bit_is_found_and_mended_by_a_full_verification() -> None:
    path = f"/srv/models/{SHARED}/current/{LARGE}"
    whole = on(HOSTS[1], f"sha256sum {path}")
    flip = f"printf x | dd of={path} bs=1 seek=70000 conv=notrunc status=none"
    on(HOSTS[1], f"touch -r {path} /tmp/time; {flip}; touch -r /tmp/time {path}")
    assert "Start the model download" not in with_models({SHARED: {}}).changed()
    with_models({SHARED: {}, "verify": "full"})
    assert on(HOSTS[1], f"sha256sum {path}") == whole


def test_a_model_goes_up_from_the_operators_machine(tmp_path: Path) -> None:
    folder = tmp_path / SENT
    folder.mkdir(parents=True)
    (folder / LARGE).write_bytes(os.urandom(BYTES))
    (folder / "config.json").write_text("{}")
    hub = f"http://{Lab.from_environment().gateway}:9100"
    places = f'sources={{"models": ["{hub}", "operator:{tmp_path}"]}}'
    with_models({SENT: {}}, "--data", places)
    wanted = sha256(folder / LARGE)
    assert on_all(f"sha256sum /srv/models/{SENT}/current/{LARGE} | cut -d ' ' -f 1") == [wanted] * 2
    assert with_models({SENT: {}}, "--data", places).changed() == {}


def test_models_that_shall_be_absent_go() -> None:
    with_models({SHARED: {"state": "absent"}, SENT: {"state": "absent"}})
    assert on_all("ls /srv/models/Lab") == [""] * 2
