"""What `plan diff` says of the parts of a lock that are no Python packages."""

from typing import Any

import pytest

from plan import lock_diff
from plan.lock import Archive, Host, Lock, Package, Packages, Tag

URL = "http://archive.example/x"


def packages(*files: str, sha256: str = "a" * 64) -> Packages:
    found = {file: Package(url=URL, size=1, sha256=sha256) for file in files}
    return Packages(made_by="apt", files=found)


def held(**parts: Any) -> Lock:
    given: dict[str, Any] = {
        "ollama": Archive(made_by="a table", file="ollama.tgz", sha256="a" * 64),
        "packages": packages("curl_7.88.1-10+deb12u12_amd64.deb", "bash-5.1.8-9.el9.x86_64.rpm"),
        "tag": Tag(made_by="a registry", manifest="a" * 64, layers={f"sha256:{1:064x}": 1}),
    } | parts
    return Lock(
        hosts={"gpu-1": Host(ollama="0.20 amd64", packages="debian12", tags=["qwen2.5:7b"])},
        ollama={"0.20 amd64": given["ollama"]},
        packages={"debian12": given["packages"]},
        tag={"qwen2.5:7b": given["tag"]},
    )


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ({}, []),
        (
            {"packages": packages("curl_7.88.1-10+deb12u14_amd64.deb", "bash-5.1.8-10.el9.x86_64.rpm")},
            [
                "system package bash 5.1.8-9.el9 becomes 5.1.8-10.el9",
                "system package curl 7.88.1-10+deb12u12 becomes 7.88.1-10+deb12u14",
            ],
        ),
        (
            {
                "packages": packages(
                    "curl_7.88.1-10+deb12u12_amd64.deb", "bash-5.1.8-9.el9.x86_64.rpm", sha256="b" * 64
                )
            },
            ["system packages have other files under the same versions"],
        ),
        (
            {"ollama": Archive(made_by="a table", file="ollama.tgz", sha256="b" * 64)},
            ["Ollama 0.20 amd64 has other bytes under the same version: ollama.tgz"],
        ),
        (
            {"tag": Tag(made_by="a registry", manifest="b" * 64, layers={f"sha256:{1:064x}": 1})},
            ["model qwen2.5:7b has another manifest for the same layers"],
        ),
    ],
)
def test_what_else_a_deploy_takes_from_a_lock_is_compared_too(
    parts: dict[str, Any], lines: list[str]
) -> None:
    assert [line.strip() for line in lock_diff.lines(held(), held(**parts))][1:] == lines


def test_packages_that_move_by_the_hundred_are_counted() -> None:
    many = [packages(*(f"p{number}_{version}_amd64.deb" for number in range(100))) for version in "12"]
    lines = list(lock_diff.lines(*(held(packages=each) for each in many)))
    assert len(lines) == 12
    assert lines[-1] == "  90 more system packages move"
