"""The models: every byte as listed, nothing else, out of reach of what serves them."""

import pytest

from plan.host import HostPlan
from plan.model_plan import ModelPlan
from plan.probe import Probe
from plan.probe_models import MANIFEST
from roles.models.deploy import programs
from tests.verify.evidence import Entry, Evidence
from tests.verify.files import difference


@pytest.fixture
def files(model: ModelPlan, evidence: Evidence) -> dict[str, Entry]:
    """What lies in the model's directory."""
    there = evidence.model(model.directory)
    if not there:
        pytest.skip(f"there is no {model.directory}")
    return there


@pytest.fixture
def listed(model: ModelPlan, probe: Probe) -> dict[str, dict[str, object]]:
    """The manifest's entries."""
    there = probe.models.get(model.directory)
    if there is None or not there.manifest.get("files"):
        pytest.skip(f"{model.directory} has no manifest")
    return dict(there.manifest["files"])


def test_model_is_there_with_its_manifest(model: ModelPlan, probe: Probe) -> None:
    there = probe.models.get(model.directory)
    assert there, f"there is no whole model at {model.directory}"
    # under which name it came is another matter: the same commit may be wanted by another one since
    found = tuple(there.manifest.get(name) for name in ("model", "commit"))
    assert found == (model.model, model.commit)
    assert there.manifest.get("files"), f"{model.directory}/{MANIFEST} names no files"


def test_every_file_has_its_listed_size_and_sha256(
    model: ModelPlan,
    listed: dict[str, dict[str, object]],
    files: dict[str, Entry],
    evidence: Evidence,
) -> None:
    hashes = evidence.hashes(model.directory)
    wrong = [
        f"{path} is {_described(files.get(path), hashes.get(path))}, "
        f"listed are {entry['size']} bytes {entry['sha256']}"
        for path, entry in listed.items()
        if path not in files or (files[path].size, hashes.get(path)) != (entry["size"], entry["sha256"])
    ]
    assert not wrong, "; ".join(wrong)


def _described(entry: Entry | None, sha256: str | None) -> str:
    return f"{entry.size} bytes {sha256}" if entry else "not there"


def test_nothing_lies_beside_the_listed_files(
    listed: dict[str, dict[str, object]], files: dict[str, Entry]
) -> None:
    folders = {path for path, entry in files.items() if entry.kind == "d"}
    extra = set(files) - folders - set(listed) - {MANIFEST}
    assert not extra, f"not listed: {', '.join(sorted(extra))}"


def test_only_its_owner_may_write_to_the_model(
    plan: HostPlan, files: dict[str, Entry], evidence: Evidence
) -> None:
    loose = [
        path or "the directory"
        for path, entry in files.items()
        if int(entry.mode, 8) & 0o022 or entry.owner not in (0, evidence.user_id)
    ]
    assert not loose, f"others than root and {plan.user} may write: {', '.join(loose)}"


def test_download_program_is_ours(model: ModelPlan, probe: Probe) -> None:
    wrong = [said for file in programs() if (said := difference(file, probe.paths.get(file.path)))]
    assert not wrong, f"{'; '.join(wrong)}: {model.model} would be downloaded by another program"
