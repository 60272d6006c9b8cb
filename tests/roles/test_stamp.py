"""What a deploy writes down about a host, last of all."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ops.stamp import settings_digest
from plan import settings, stamp
from plan.decide import plan_host
from plan.probe import parse
from tests import probes
from tests.roles.fleet import Answer, FakeHost, Run, deploy
from tests.roles.served import served

KEY = "a-key-that-nobody-may-see-0123"
BARE = probes.answer(probes.BARE)
ONE = {"serve": {"chat": {"model": "Qwen/Qwen2.5-0.5B-Instruct"}}}


@pytest.fixture(scope="module")
def run() -> Run:
    data = {**ONE, "access": {"listen": "10.44.0.0/24", "api_key_env": "BRINGUP_TEST_KEY"}}
    return deploy(
        FakeHost("good", BARE, data),
        FakeHost("bad", BARE, data, [Answer(r"SubState bringup-install-vllm", "failed")]),
        BRINGUP_TEST_KEY=KEY,
    )


@pytest.fixture(scope="module")
def written(run: Run) -> stamp.Stamp:
    found = stamp.parse(run.files("good")[stamp.FILE])
    assert found
    return found


def test_a_whole_deploy_is_stamped_last_for_root_s_eyes(run: Run) -> None:
    assert run.kinds("good")[-2:] == ["stamp", f"write {stamp.FILE}"]
    assert "-m 600 -o root -g root" in run.execs["good"][-1].command


def test_a_deploy_that_failed_leaves_no_stamp(run: Run) -> None:
    assert stamp.FILE not in run.files("bad")


def test_the_stamp_has_plan_version_and_every_file(run: Run, written: stamp.Stamp) -> None:
    assert written.plan["services"][0]["flags"]
    assert written.version and written.settings and written.time.endswith("+00:00")
    files = run.files("good")
    assert set(written.files) == set(files) - {stamp.FILE}
    unit = "/etc/systemd/system/vllm-chat.service"
    assert written.files[unit].text == files[unit]


def test_the_stamp_holds_no_secret(run: Run, written: stamp.Stamp) -> None:
    assert KEY not in run.files("good")[stamp.FILE]
    secret = [file for path, file in written.files.items() if path.endswith("nginx.conf")]
    assert secret and all(file.sha256 is None and file.text is None for file in secret)


def test_what_was_meant_for_the_moment_is_not_kept(written: stamp.Stamp) -> None:
    text = json.dumps(written.plan)
    assert not [name for name in ("removed_models", "warnings", '"why"') if name in text]


def test_the_host_writes_its_state_as_the_probe_would_tell_it(run: Run, tmp_path: Path) -> None:
    """The shell text and `plan.stamp.state` are two writers of one format."""
    command = next(trip.command for trip in run.execs["good"] if f"{stamp.STATE_FILE}.new" in trip.command)
    mine = command.replace(stamp.STATE_FILE, str(tmp_path / "state"))
    mine = mine.replace("/etc/bringup", str(tmp_path)).replace("uname -r", "echo 6.1.0")
    lock = tmp_path / "environments" / "serve" / "requirements-0.txt"
    lock.parent.mkdir(parents=True)
    lock.write_text("torch==1\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "dpkg-query").write_text(
        "#!/bin/sh\nprintf 'ii  package curl 7.88\\nhi  package libnuma1 2\\nrc  package gone 1\\n'\n"
    )
    (tools / "dpkg-query").chmod(0o755)
    environment = {"PATH": f"{tools}:/usr/bin:/bin"}
    subprocess.run(["sh", "-euc", mine], check=True, env=environment)
    text = (tmp_path / "state").read_text().replace(str(tmp_path), "/etc/bringup")
    plan = plan_host("good", settings.read([ONE]), parse(BARE))
    there = parse(served(BARE, [], plan))
    found = stamp.state_lines(text)
    assert set(found) == {
        ("kernel", ""),
        ("driver", ""),
        ("package", "curl"),
        ("package", "libnuma1"),
        ("lock", "/etc/bringup/environments/serve/requirements-0.txt"),
    }
    kinds = {kind for kind, _ in stamp.state_lines(there.state)}
    assert kinds == {kind for kind, _ in found}
    assert oct((tmp_path / "state").stat().st_mode & 0o777) == "0o600"


def digest(data: dict[str, Any]) -> str:
    return settings_digest(settings.read([data]))


@pytest.mark.parametrize(
    "more",
    [
        {"models": {ONE["serve"]["chat"]["model"]: {"exclude": ["*.pth"]}}},
        {"models": {"keep": 3}},
        {"driver": {"branch": 570}},
    ],
)
def test_another_setting_is_another_digest(more: dict[str, Any]) -> None:
    assert digest(ONE | more) != digest(ONE) == digest(ONE)


def test_another_text_in_a_file_that_a_setting_names_is_another_digest(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    data = {"serve": {"chat": {**ONE["serve"]["chat"], "chat_template": str(template)}}}
    before = digest(data)
    template.write_text("{{ messages[0] }}")
    assert digest(data) != before
