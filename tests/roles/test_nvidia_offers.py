"""What a package source would give as the driver: apt itself, and a signed repository of empty packages."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.render import render
from plan import bundle, lock, nvidia_pins, settings
from plan.__main__ import main
from plan.decide import plan_host
from plan.host import HostPlan
from plan.lock import Host, Lock
from plan.nvidia_words import plan_text
from tests.plan import wheel_index
from tests.plan.test_nvidia import H100, machine

pytestmark = pytest.mark.lab

RELEASES = ("580.65.06", "580.95.05", "595.71.05")


def package(
    folder: Path, name: str, version: str, needs: str = "", files: dict[str, bytes] | None = None
) -> Path:
    """A Debian package that holds these files."""
    tree = folder / f"tree-{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    depends = f"Depends: {needs}\n" if needs else ""
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody\n{depends}"
        "Description: empty\n"
    )
    for path, content in (files or {}).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    made = folder / f"{name}_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--build", tree, made], check=True, capture_output=True)
    return made


def stanza(path: Path) -> str:
    control = subprocess.run(["dpkg-deb", "-f", path], check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{control}Filename: ./{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n"


class Repository:
    """NVIDIA's repository for Debian 12, as far as apt asks for it."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "repository" / "debian12" / "x86_64"
        self.folder.mkdir(parents=True)
        self.key = self._key(root / "gnupg")
        (self.folder / "cuda-keyring_1.1-1_all.deb").write_bytes(self._keyring(root).read_bytes())
        package(self.folder, "dkms", "3.0")
        for release in RELEASES:
            exact = f"{release}-1"
            package(self.folder, "libcuda1", exact)
            package(self.folder, "nvidia-driver-cuda", exact, f"libcuda1 (= {exact})")
            package(self.folder, "nvidia-kernel-open-dkms", exact, "dkms")
            package(self.folder, "nvidia-persistenced", exact)
        self.publish()

    def _gpg(self, *words: str) -> bytes:
        line = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--passphrase", "", *words]
        return subprocess.run(line, check=True, capture_output=True).stdout

    def _key(self, home: Path) -> bytes:
        home.mkdir(mode=0o700)
        self.home = home
        self._gpg("--quick-generate-key", "repository@example.com", "rsa2048", "sign", "never")
        return self._gpg("--export")

    def _keyring(self, root: Path) -> Path:
        file = "usr/share/keyrings/cuda-archive-keyring.gpg"
        return package(root, "cuda-keyring", "1.1-1", files={file: self.key})

    def publish(self) -> None:
        debs = sorted(self.folder.glob("*.deb"))
        packages = "\n".join(stanza(path) for path in debs if not path.name.startswith("cuda-"))
        (self.folder / "Packages").write_text(packages)
        digest = hashlib.sha256(packages.encode()).hexdigest()
        release = f"Date: Sun, 01 Nov 2026 00:00:00 UTC\nSHA256:\n {digest} {len(packages)} Packages\n"
        (self.folder / "Release").write_text(release)
        (self.folder / "InRelease").unlink(missing_ok=True)
        self._gpg("--clearsign", "--output", str(self.folder / "InRelease"), str(self.folder / "Release"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Repository, str]]:
    root = tmp_path_factory.mktemp("nvidia")
    made = Repository(root)
    with wheel_index.served(root) as url:
        yield made, f"{url.removesuffix('/simple')}/repository"
    subprocess.run(["gpgconf", "--homedir", str(made.home), "--kill", "gpg-agent"], check=True)


def answer(
    repository: tuple[Repository, str], key_hash: str = "", **driver: object
) -> tuple[HostPlan, str, str]:
    """The plan of a bare host with an H100, and what the program says and complains of."""
    made, url = repository
    wanted = settings.read([{"driver": driver, "sources": {"nvidia": url}}])
    plan = plan_host("gpu-1", wanted, machine(device=H100))
    assert plan.driver.repository
    keyring = (made.folder / "cuda-keyring_1.1-1_all.deb").read_bytes()
    pinned = key_hash or hashlib.sha256(keyring).hexdigest()
    own = dataclasses.replace(plan.driver.repository, key_hash=pinned)
    text = plan_text(plan, dataclasses.replace(plan.driver, repository=own))
    # nothing beside that repository, so that no mirror is asked
    script = render("nvidia/offers.sh", plan=text, mirror="# nothing")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return plan, done.stdout, done.stderr


def test_the_newest_release_of_the_branch_is_locked_with_all_that_belongs_to_it(
    repository: tuple[Repository, str],
) -> None:
    plan, said, errors = answer(repository, branch=580)
    found = nvidia_pins.pins(plan.driver, machine(device=H100), said)
    assert found, errors
    assert found.release == "580.95.05"
    names = ("libcuda1", "nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced")
    assert found.packages == dict.fromkeys(names, "580.95.05-1")


def test_the_release_of_the_settings_is_taken(repository: tuple[Repository, str]) -> None:
    plan, said, errors = answer(repository, version="580.65.06")
    found = nvidia_pins.pins(plan.driver, machine(device=H100), said)
    assert found, errors
    assert {*found.packages.values()} == {"580.65.06-1"}


def test_a_bundle_has_all_of_it_and_apt_installs_from_there_alone(
    repository: tuple[Repository, str], tmp_path: Path
) -> None:
    plan, said, errors = answer(repository, branch=580)
    host = machine(device=H100)
    driver, files = nvidia_pins.pins(plan.driver, host, said), nvidia_pins.closure(said)
    assert driver and files, errors
    assert {*files.files} == {
        "dkms_3.0_all.deb",
        *(f"{name}_580.95.05-1_all.deb" for name in driver.packages),
    }
    name = nvidia_pins.name(driver, plan.driver, host)
    held = Lock(hosts={"gpu-1": Host(driver=name)}, driver={name: driver}, packages={name: files})
    (tmp_path / "fleet.lock").write_text(lock.render(held, "fleet.py"))
    assert main(["bundle", str(tmp_path / "fleet.lock"), str(tmp_path / "out")]) == 0

    (tmp_path / "lists" / "partial").mkdir(parents=True)
    folder = tmp_path / "out" / "packages" / bundle.folder_of(name)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    options = [
        f"Dir::Etc::SourceList={tmp_path}/sources.list",
        "Dir::Etc::SourceParts=/dev/null",
        f"Dir::State::Lists={tmp_path}/lists",
        f"Dir::Cache={tmp_path}",
        "Dir::State::status=/dev/null",
        "APT::Sandbox::User=root",
    ]
    words = [word for option in options for word in ("-o", option)]
    subprocess.run(["apt-get", "-qq", *words, "update"], check=True)
    exact = [f"{package}={version}" for package, version in driver.packages.items()]
    done = subprocess.run(
        ["apt-get", "-qq", *words, "--dry-run", "install", *exact, "dkms"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert {*re.findall(r"(?m)^Inst (\S+)", done.stdout)} == {*driver.packages, "dkms"}


def test_a_release_that_it_does_not_have_is_said(repository: tuple[Repository, str]) -> None:
    _, said, errors = answer(repository, version="580.99.99")
    assert said == ""
    assert re.search(
        r"driver: the package sources have no \S+ of release 580.99.99, only 580.65.06, ", errors
    )


def test_another_key_than_the_pinned_one_is_trusted_by_nobody(
    repository: tuple[Repository, str],
) -> None:
    _, said, errors = answer(repository, key_hash="0" * 64, branch=580)
    assert said == ""
    assert errors.endswith("has not the pinned sha256. Correct sources.nvidia.\n")
