"""What a deploy does around the download program: help from the operator's machine, secrets, private hubs."""

import base64
import re
from pathlib import Path

import pytest

from tests import probes
from tests.roles import commits
from tests.roles.fleet import Answer, FakeHost, Run, deploy

BARE = probes.answer(probes.BARE)
MODEL = "Lab/Sent"
JOIN = r"state=\$\(systemctl show --value -p SubState bringup-model-"


def starts(run: Run) -> list[str]:
    """The commands that started the download."""
    return [trip.command for trip in run.execs["a"] if "--unit=bringup-model-" in trip.command]


def test_files_that_no_hub_gives_rightly_are_sent_and_the_download_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / MODEL
    folder.mkdir(parents=True)
    for name in ("right.safetensors", "other.safetensors"):
        (folder / name).write_bytes(name.encode())
    (tmp_path / "secret").write_text("of the operator")
    answers = [
        Answer(JOIN, "failed", then="exited"),
        Answer(r"cat \S+\.wanted", "right.safetensors\n../../secret\n"),
    ]
    places = [commits.url(), f"operator:{tmp_path}"]
    wanted = {"models": {MODEL: {}}, "sources": {"models": places}}
    run = deploy(FakeHost("a", BARE, answers=answers), data=wanted)
    assert run.code == 0, run.output
    sent = [trip for trip in run.execs["a"] if "base64 -d >>" in trip.command]
    assert [base64.b64decode(trip.stdin) for trip in sent] == [b"right.safetensors"]
    first, second = starts(run)
    assert "--setenv=BRINGUP_OPERATOR=1" in first and "BRINGUP_OPERATOR" not in second
    assert re.search(r"bringup: .*? \[[0-9a-f]{12}\]", first)[0] in second  # type: ignore[index]


def test_a_directory_without_a_manifest_is_not_taken_for_a_commit(tmp_path: Path) -> None:
    folder = tmp_path / MODEL
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"of any commit")
    wanted = {
        "models": {MODEL: {"revision": "a" * 40}},
        "sources": {"models": [f"operator:{tmp_path}"]},
    }
    run = deploy(FakeHost("a", BARE), data=wanted)
    assert run.code == 1
    assert f"commit {'a' * 40} is not in operator:{tmp_path}" in run.output.replace("\n", " ")
    assert not starts(run)


def test_a_download_that_fails_fails_its_host_where_the_operator_cannot_help() -> None:
    run = deploy(FakeHost("a", BARE, answers=[Answer(JOIN, "failed")]), data={"models": {MODEL: {}}})
    assert run.code == 1
    assert len(starts(run)) == 1


def test_a_cut_download_of_what_is_absent_is_stopped_and_removed() -> None:
    unit = "Id=bringup-model-sent-123456.service\nActiveState=active\nSubState=running"
    probe = probes.with_block(BARE, "units", *unit.splitlines())
    probe = probes.with_block(probe, "model_parts", f"4\t/srv/models/{MODEL}/.sent-123456.part")
    run = deploy(FakeHost("a", probe), data={"models": {MODEL: {"state": "absent"}}})
    assert run.code == 0, run.output
    commands = [trip.command for trip in run.execs["a"]]
    stop, remove = "systemctl stop bringup-model-sent-123456.service", f"rm -rf -- /srv/models/{MODEL}"
    at = [[index for index, command in enumerate(commands) if words in command] for words in (stop, remove)]
    assert [len(found) for found in at] == [1, 1] and at[0] < at[1]


@pytest.mark.parametrize("options", [("-y",), ("-y", "-vvv")])
def test_secrets_of_downloads_are_in_no_command_no_output_and_one_file_of_roots(
    options: tuple[str, ...],
) -> None:
    secrets = {
        "TOKEN": "ms-nobody-may-see-it",
        "HF": "hf-nobody-may-see-it",
        "PROXY": "ops:nobody-may:see it",
    }
    wanted = {
        "models": {
            MODEL: {},
            "token_env": "TOKEN",
            "huggingface_token_env": "HF",
            "proxy": "http://proxy.intranet:3128",
            "proxy_credentials_env": "PROXY",
        }
    }
    run = deploy(FakeHost("a", BARE), data=wanted, options=options, **secrets)
    assert run.code == 0, run.output
    shown = run.output + "".join(trip.command for trip in run.execs["a"])
    for secret in ("ms-nobody-may", "hf-nobody-may", "nobody-may:see", "nobody-may%3Asee"):
        assert secret not in shown
    assert run.files("a")["/etc/bringup/credentials/models.env"].splitlines() == [
        "MODELSCOPE_API_TOKEN=ms-nobody-may-see-it",
        "HF_TOKEN=hf-nobody-may-see-it",
        "http_proxy=http://ops:nobody-may%3Asee%20it@proxy.intranet:3128",
        "https_proxy=http://ops:nobody-may%3Asee%20it@proxy.intranet:3128",
    ]
    (writing,) = [trip for trip in run.execs["a"] if "credentials/models.env.new" in trip.command]
    assert re.search(r"install -D [^&;]*-m 600|install -D .*600", writing.command)
    (started,) = starts(run)
    assert "--property=EnvironmentFile=/etc/bringup/credentials/models.env" in started


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ({"proxy_credentials_env": "PROXY"}, "holds no USER:PASSWORD for models.proxy"),
        (
            {"proxy_credentials_env": "NOTHING", "proxy": "http://p:1"},
            "holds no USER:PASSWORD for models.proxy",
        ),
        ({"token_file": "/nowhere/token"}, "models.token_file: /nowhere/token: No such file or directory"),
    ],
)
def test_a_secret_that_is_not_there_is_told_before_anything_changes(
    models: dict[str, str], sentence: str
) -> None:
    run = deploy(FakeHost("a", BARE), data={"models": {MODEL: {}} | models}, PROXY="ops:word")
    assert run.code == 1
    assert sentence in run.output
    assert run.kinds("a") == ["probe"]
