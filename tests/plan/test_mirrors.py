"""The address tables say where everything comes from, in forms that the settings accept."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

import plan
from plan import conda
from plan.sections import Sources
from plan.sections.base import Url

FOLDER = Path(plan.__file__).parent
PRESETS: dict[str, dict[str, dict[str, Any]]] = tomllib.loads((FOLDER / "mirrors.toml").read_text())
RELEASES: list[dict[str, Any]] = tomllib.loads((FOLDER / "ollama.toml").read_text())["release"]


def addresses() -> Iterator[tuple[str, dict[str, Any]]]:
    for preset, sources in PRESETS.items():
        for name, row in sources.items():
            yield f"{preset}.{name}", row
            for number, alternative in enumerate(row.get("alternatives", [])):
                yield f"{preset}.{name}.{number}", alternative


EVERY_ADDRESS = [pytest.param(row, id=name) for name, row in addresses()]


def test_both_presets_cover_the_same_sources() -> None:
    assert set(PRESETS) == {"default", "china"}
    assert set(PRESETS["default"]) == set(PRESETS["china"])


def test_every_address_that_can_be_set_has_a_preset() -> None:
    assert set(PRESETS["default"]) >= set(Sources.model_fields) - {
        "preset",
        "bundle",
        "conda_installer_sha256",
        "ollama_version",
        "ollama_sha256",
        "wheels_extra",
        "wheels_links",
    }


@pytest.mark.parametrize("row", EVERY_ADDRESS)
def test_every_address_has_its_source_and_an_absent_one_its_reason(row: dict[str, Any]) -> None:
    assert isinstance(row["verified"], bool)
    assert row["source"]
    assert row.get("url") or row["note"]


@pytest.mark.parametrize("row", EVERY_ADDRESS)
def test_every_address_is_one_that_the_settings_would_accept(row: dict[str, Any]) -> None:
    if "url" in row:
        url = conda.installer("x86_64").url(row["url"])
        assert TypeAdapter(Url).validate_python(url) == url
        assert url.startswith("https://")
        assert not url.endswith("/")


@pytest.mark.parametrize("preset", PRESETS)
def test_an_installer_address_names_the_file_it_asks_for(preset: str) -> None:
    assert "{file}" in PRESETS[preset]["conda_installer"]["url"]


def test_the_chinese_torch_mirror_has_every_tag_of_the_original() -> None:
    assert set(PRESETS["china"]["torch"]["tags"]) == set(PRESETS["default"]["torch"]["tags"])


def test_what_has_no_mirror_in_china_says_so() -> None:
    assert {name for name, row in PRESETS["china"].items() if "url" not in row} == {"vllm", "apt"}


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release["version"])
def test_every_ollama_release_has_a_hashed_archive_for_both_architectures(release: dict[str, Any]) -> None:
    files = {archive["architecture"]: archive["file"] for archive in release["archives"]}
    packing = "tar.zst" if files["x86_64"].endswith(".tar.zst") else "tgz"
    assert files == {
        "x86_64": f"ollama-linux-amd64.{packing}",
        "aarch64": f"ollama-linux-arm64.{packing}",
    }
    assert release["source"]
    for archive in release["archives"]:
        assert re.fullmatch(r"[0-9a-f]{64}", archive["sha256"])
        assert isinstance(archive["verified"], bool)


def test_ollama_releases_stand_newest_first_and_the_newest_is_verified() -> None:
    versions = [tuple(int(part) for part in release["version"].split(".")) for release in RELEASES]
    assert versions == sorted(versions, reverse=True)
    assert all(archive["verified"] for archive in RELEASES[0]["archives"])
