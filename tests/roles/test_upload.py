"""Sending from the operator's machine: what is there is not sent again, unless it is another file's."""

import json
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from ops import upload
from ops.remote import Answer, Remote
from plan.model_plan import ModelPlan


class Here(Remote):
    """This machine for the host."""

    def __init__(self) -> None:
        """Without a connection."""

    def run(self, script: str, stdin: str | None = None) -> Answer:
        done = subprocess.run(
            ["sh", "-c", script], input=stdin or "", capture_output=True, text=True, check=False
        )
        return Answer(not done.returncode, done.stdout)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"from the first to the last")
    return path


@pytest.mark.parametrize(
    ("there", "offset"),
    [
        (b"", 0),
        (b"from the first", 14),
        (b"from the first to the last", 26),
        (b"of another file", None),
        (b"from the first to the last and more", None),
    ],
    ids=["begun", "half", "whole", "another", "longer"],
)
def test_what_the_source_begins_with_is_not_sent_again(
    there: bytes, offset: int | None, source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a folder's"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a name").write_bytes(there)
    (folder / "nobody's").write_bytes(there)
    found = upload.already(Here(), str(folder), {"below/a name": source, "lacking": source})
    assert found == ({} if offset is None else {"below/a name": offset})


def test_an_empty_file_is_sent_too(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    me = pwd.getpwuid(os.getuid()).pw_name
    for start, piece in upload.pieces(tmp_path / "empty", 0):
        upload.append(Here(), str(tmp_path / "there"), start, piece, owner=me)
    assert (tmp_path / "there").read_bytes() == b""


def test_a_file_that_is_a_published_models_as_well_is_not_written_into(tmp_path: Path) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    published = tmp_path / "published"
    published.write_bytes(b"as it is served")
    os.link(published, tmp_path / "staged")
    upload.append(Here(), str(tmp_path / "staged"), 0, b"another", owner=me)
    assert published.read_bytes() == b"as it is served"
    assert (tmp_path / "staged").read_bytes() == b"another"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelPlan:
    """One of three files in the operator's directory, and nothing of it on the host."""
    monkeypatch.setattr("plan.model_plan.MODELS_ROOT", str(tmp_path / "host"))
    monkeypatch.setattr("ops.upload.USER", "daemon")
    monkeypatch.setattr("ops.upload.append.__defaults__", ("daemon",))
    folder = tmp_path / "models/Org/Name"
    for name in ("a/b/model.safetensors", "model.bin", ".bringup.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return ModelPlan("Org/Name", "master", f"operator:{tmp_path}/models", commit="c" * 40, exclude=("*.bin",))


def owners(folder: Path) -> set[str]:
    return {path.owner() for path in (folder, *folder.rglob("*"))}


def sent(model: ModelPlan, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, str]:
    """Whether a model was sent, and what the operator was told."""
    told: list[str] = []
    monkeypatch.setattr("ops.upload.Remote", lambda *_: remote)
    for name in ("tell", "ended"):
        monkeypatch.setattr(f"ops.progress.{name}", lambda *_: None)
    monkeypatch.setattr("ops.progress.failed", lambda _, __, text: told.append(text))
    return upload._send(None, None, model, lambda: True, {}), " ".join(told)  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to the service user")
def test_what_is_wanted_is_sent_into_directories_of_the_service_users(
    model: ModelPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sent(model, Here(), monkeypatch) == (True, "")
    staging = Path(model.staging)
    assert [str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file()] == [
        "a/b/model.safetensors"
    ]
    assert list(json.loads(Path(f"{staging}.json").read_text())) == ["a/b/model.safetensors"]
    # another model of the same organisation may come by a download, which runs as that user
    assert owners(tmp_path / "host/Org") == {"daemon"}


class Full(Here):
    """A host that takes no more bytes."""

    def run(self, script: str, stdin: str | None = None) -> Answer:
        return Answer(False, "") if "base64" in script else super().run(script, stdin)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to the service user")
def test_a_full_disk_and_a_file_that_cannot_be_read_are_not_told_as_a_broken_connection(
    model: ModelPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, told = sent(model, Full(), monkeypatch)
    assert not done and "model.safetensors cannot be written: is the disk full?" in told
    assert "connection" not in told
    monkeypatch.setattr(
        "ops.upload.pieces", lambda path, _: (_ for _ in ()).throw(PermissionError(13, "no", str(path)))
    )
    done, told = sent(model, Here(), monkeypatch)
    assert not done and "no: " in told and "connection" not in told
