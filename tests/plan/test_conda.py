"""The conda tables hang together, and become files that conda reads."""

import re

import pytest

from plan import conda, tables
from plan.errors import PlanError

CHANNEL = "https://conda.anaconda.org/conda-forge"
ENVIRONMENTS = [
    (python, architecture) for architecture in conda.SUBDIRS for python in conda.pythons(architecture)
]


@pytest.mark.parametrize(("python", "architecture"), ENVIRONMENTS)
def test_every_package_comes_after_all_that_it_needs(python: str, architecture: str) -> None:
    installed: set[str] = set()
    for package in conda.closure(python, architecture).packages:
        assert installed.issuperset(package.needs), package.file
        assert package.name not in installed
        installed.add(package.name)
    assert {"python", "pip", "ca-certificates", "openssl"} <= installed


@pytest.mark.parametrize(("python", "architecture"), ENVIRONMENTS)
def test_a_lock_holds_nothing_that_is_not_needed(python: str, architecture: str) -> None:
    packages = {package.name: package for package in conda.closure(python, architecture).packages}
    needed: set[str] = set()
    waiting = {"python", "pip"}
    while waiting:
        needed |= waiting
        waiting = {need for name in waiting for need in packages[name].needs} - needed
    assert needed == set(packages)


@pytest.mark.parametrize(("python", "architecture"), ENVIRONMENTS)
def test_a_lock_brings_the_python_it_is_named_after(python: str, architecture: str) -> None:
    closure = conda.closure(python, architecture)
    (interpreter,) = [package for package in closure.packages if package.name == "python"]
    assert interpreter.file.startswith(f"python-{closure.release}-")
    assert closure.release.startswith(f"{python}.")
    assert {package.subdir for package in closure.packages} == {conda.SUBDIRS[architecture], "noarch"}


@pytest.mark.parametrize(("python", "architecture"), ENVIRONMENTS)
def test_an_explicit_lock_is_of_the_form_that_conda_reads(python: str, architecture: str) -> None:
    lines = conda.explicit_lock(python, architecture, CHANNEL).splitlines()
    subdir = conda.SUBDIRS[architecture]
    assert lines[:2] == [f"# platform: {subdir}", "@EXPLICIT"]
    for line in lines[2:]:
        assert re.fullmatch(
            rf"{re.escape(CHANNEL)}/({subdir}|noarch)/[a-z0-9_.-]+\.conda#sha256:[0-9a-f]{{64}}", line
        )


def test_every_python_that_vllm_runs_on_has_a_lock_on_both_architectures() -> None:
    assert conda.pythons("x86_64") == conda.pythons("aarch64") == ("3.10", "3.11", "3.12", "3.13")


def test_a_mirror_changes_addresses_and_no_hash() -> None:
    mirror = "https://mirrors.tuna.tsinghua.edu.cn/anaconda/cloud/conda-forge/"
    original = conda.explicit_lock("3.12", "x86_64", CHANNEL)
    assert conda.explicit_lock("3.12", "x86_64", mirror) == original.replace(CHANNEL, mirror.rstrip("/"))


def test_a_package_known_from_one_place_only_is_marked() -> None:
    single = {
        package.name
        for python, architecture in ENVIRONMENTS
        for package in conda.closure(python, architecture).packages
        if not package.verified
    }
    assert single == {"libexpat", "libuuid"}


@pytest.mark.parametrize("architecture", conda.SUBDIRS)
def test_the_installer_is_the_newest_for_its_architecture(architecture: str) -> None:
    found = conda.installer(architecture)
    assert found.file == f"Miniforge3-{found.version}-Linux-{architecture}.sh"
    assert re.fullmatch(r"[0-9a-f]{64}", found.sha256)
    assert found.verified
    listed = [row["version"] for row in tables.read("conda")["installer"]]
    assert found.version == max(listed, key=lambda text: [int(part) for part in re.split(r"[.-]", text)])


def test_an_installer_address_takes_version_and_file_from_the_installer() -> None:
    found = conda.installer("aarch64")
    assert found.url("https://mirror.example/Release%20{version}/{file}") == (
        f"https://mirror.example/Release%20{found.version}/Miniforge3-{found.version}-Linux-aarch64.sh"
    )
    assert found.url("https://mirror.example/fixed.sh") == "https://mirror.example/fixed.sh"


def test_an_unknown_python_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PlanError) as refused:
        conda.explicit_lock("3.8", "x86_64", CHANNEL)
    assert refused.value.sentences == [
        "environment.python: there is no lock for Python 3.8 on x86_64. "
        "Choose one of 3.10, 3.11, 3.12, 3.13, or give `environment.lock_file`."
    ]


@pytest.mark.parametrize("ask", [conda.installer, conda.pythons])
def test_an_unknown_architecture_is_refused_with_the_known_ones(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(PlanError, match=r"no conda packages are known for ppc64le\. .* x86_64, aarch64\."):
        ask("ppc64le")


@pytest.mark.parametrize(
    "channel", ["conda-forge", "https://a b/c", "https://a/b\nhttps://evil/c", "https://a/#b"]
)
def test_a_channel_that_is_no_address_is_refused(channel: str) -> None:
    with pytest.raises(PlanError, match=r"sources\.conda_channel"):
        conda.explicit_lock("3.12", "x86_64", channel)
