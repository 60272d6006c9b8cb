"""The stand-in for conda reads locks, refuses and installs as the real one does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from pathlib import Path

import httpx
import pytest
import rattler
import rattler.index

from tests.lab.hubs.conda import installer, packages, python
from tests.lab.hubs.conda.stand_in import explicit
from tests.lab.hubs.conda.stand_in.errors import ChecksumMismatchError, CondaHTTPError, CondaValueError

# -- conda --------------------------------------------------------------------------------------------------


def test_an_explicit_line_may_carry_md5_sha256_or_none() -> None:
    url = "http://a.example/forge/linux-64/python-3.11.2-0.tar.bz2"
    sha, md5 = "a" * 64, "b" * 32
    assert explicit.parse(url).sha256 is None
    assert explicit.parse(f"{url}#sha256:{sha}").sha256 == explicit.parse(f"{url}#{sha}").sha256 == sha
    assert explicit.parse(f"{url}#{md5}").md5 == md5
    assert (explicit.parse(url).channel, explicit.parse(url).subdir) == ("http://a.example/forge", "linux-64")


def test_a_file_that_needs_a_solver_is_refused(tmp_path: Path) -> None:
    (tmp_path / "specs.txt").write_text("python=3.11\n")
    with pytest.raises(CondaValueError, match="no solver"):
        explicit.read(tmp_path / "specs.txt")


def test_a_package_with_another_hash_is_refused_and_not_kept(
    files: httpx.Client, published: Path, tmp_path: Path
) -> None:
    channel = published / "conda" / "forge" / "linux-64"
    channel.mkdir(parents=True, exist_ok=True)
    (channel / "a-1-0.tar.bz2").write_bytes(b"package")
    url = f"{files.base_url}/conda/forge/linux-64/a-1-0.tar.bz2".replace("//conda", "/conda")
    with pytest.raises(ChecksumMismatchError, match="expected sha256"):
        explicit.fetch(explicit.parse(f"{url}#sha256:{'0' * 64}"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    right = explicit.parse(f"{url}#sha256:{hashlib.sha256(b'package').hexdigest()}")
    assert explicit.fetch(right, tmp_path).read_bytes() == b"package"


def test_a_missing_package_is_reported_as_conda_does(files: httpx.Client, tmp_path: Path) -> None:
    url = str(files.base_url).rstrip("/") + "/conda/forge/linux-64/nope-1-0.tar.bz2"
    with pytest.raises(CondaHTTPError, match="HTTP 404 NOT FOUND for url"):
        explicit.fetch(explicit.parse(url), tmp_path)


def test_conda_s_own_library_links_our_packages_and_puts_the_prefix_in(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "hello").write_text(f"#!/bin/sh\necho {python.PLACEHOLDER}\n")
    (tree / "bin" / "hello").chmod(0o755)
    (tree / "bin" / "hi").symlink_to("hello")
    channel = tmp_path / "channel"
    packages.write_package(packages.Package("hello", "1.0"), tree, channel)
    prefix = tmp_path / "prefix"

    async def link() -> None:
        await rattler.index.index_fs(channel, write_shards=False)
        records = await rattler.solve([rattler.Channel(channel.as_uri())], ["hello"], platforms=["linux-64"])
        await rattler.install(records, prefix, cache_dir=tmp_path / "cache", show_progress=False)

    asyncio.run(link())
    assert subprocess.check_output([prefix / "bin" / "hi"], text=True) == f"{prefix}\n"
    assert json.loads((prefix / "conda-meta" / "hello-1.0-0_stand_in.json").read_text())["version"] == "1.0"


def test_the_installer_relocates_its_prefix_and_refuses_what_the_real_one_refuses(tmp_path: Path) -> None:
    base = tmp_path / "built"
    (base / "conda-meta").mkdir(parents=True)
    (base / "bin").mkdir()
    (base / "bin" / "conda").write_text(f"#!{base}/bin/python\n")
    script = tmp_path / "Installer.sh"
    installer.write_installer(base, script, "1.2.3")

    def install(*options: str, file: Path = script) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", file, *options], capture_output=True, text=True)

    target = tmp_path / "opt" / "conda"
    assert install("-b", "-p", str(target)).returncode == 0
    assert (target / "bin" / "conda").read_text() == f"#!{target}/bin/python\n"
    again = install("-b", "-p", str(target))
    assert (again.returncode, "already exists" in again.stderr) == (1, True)
    assert install("-b", "-u", "-p", str(target)).returncode == 0
    assert install("-b", "-p", f"{tmp_path}/a b").returncode == 1
    cut = tmp_path / "cut.sh"
    cut.write_bytes(script.read_bytes()[:-10])
    damaged = install("-b", "-p", f"{tmp_path}/other", file=cut)
    assert (damaged.returncode, (tmp_path / "other").exists()) == (1, False)
