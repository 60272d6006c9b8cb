"""What a deploy from a bundle has stamped is what the checks plan."""

# first: it changes how Python waits
from tests.verify import fleet  # isort: skip

from pathlib import Path

import pytest
from pyinfra.api.inventory import Inventory

from ops import locks
from ops.stamp import settings_digest
from plan import settings, stamp
from plan.drift import Seen, differences
from plan.probe import parse
from tests.plan.locks import GPU
from tests.roles.fleet import FakeHost, deploy
from tests.roles.served import served
from tests.roles.test_bundle import MEDIA, TEXT, applied, from_place


@pytest.mark.parametrize("place", [MEDIA, "http://bundle.example:9280"])
def test_a_host_that_was_deployed_from_a_bundle_does_not_differ(place: str, tmp_path: Path) -> None:
    data = from_place(place)
    run = deploy(FakeHost("gpu", GPU, data), lock=TEXT)
    assert run.code == 0, run.output
    probe = parse(served(GPU, list(run.execs["gpu"]), applied(place)))
    (tmp_path / "fleet.py").touch()
    (tmp_path / "fleet.lock").write_text(TEXT)
    (host,) = Inventory(([("@fake/gpu", data)], {}))  # type: ignore[no-untyped-call]
    wanted = settings.read([data])
    locks.use_beside(str(tmp_path / "fleet.py"))
    try:
        plan, apart = fleet.as_deployed(host, wanted, probe)
        digest = locks.digest(host.name)
    finally:
        locks.use_beside(None)
    text = run.files("gpu")[stamp.FILE]
    version = stamp.parse(text).version  # type: ignore[union-attr]
    found = differences(plan, probe, Seen(text), settings_digest(wanted), version, digest)
    assert apart == ""
    assert [one.sentence for one in found if not one.about.startswith("/")] == []
