"""Which Miniforge installer and which packages make a conda environment, from conda.toml beside this file."""

import re
from dataclasses import dataclass
from functools import lru_cache

from plan import tables
from plan.errors import PlanError

SUBDIRS = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}


@dataclass(frozen=True)
class Installer:
    """A Miniforge installer: a shell script that carries conda."""

    version: str
    architecture: str
    file: str
    sha256: str
    source: str
    verified: bool

    def url(self, template: str) -> str:
        """The address of this installer, from one that may name `{version}` and `{file}`."""
        return template.replace("{version}", self.version).replace("{file}", self.file)


@dataclass(frozen=True)
class Package:
    """A built conda package; `needs` are the names of the packages it depends on."""

    file: str
    subdir: str
    sha256: str
    md5: str
    needs: tuple[str, ...]
    verified: bool

    @property
    def name(self) -> str:
        """The package's name, which a file name carries before version and build."""
        return self.file.rsplit("-", 2)[0]


@dataclass(frozen=True)
class Closure:
    """The packages of a bare environment (python, pip and what they need), each after those it needs."""

    python: str
    release: str
    subdir: str
    virtual: tuple[str, ...]
    packages: tuple[Package, ...]
    source: str


def installer(architecture: str) -> Installer:
    """The newest known Miniforge installer.

    Args:
        architecture: as `uname -m` says it.

    Raises:
        PlanError: there is none for that architecture.
    """
    _subdir(architecture)
    rows = tables.read("conda")["installer"]
    return next(Installer(**row) for row in rows if row["architecture"] == architecture)


def pythons(architecture: str) -> tuple[str, ...]:
    """The Python versions ("3.12") that have a lock, oldest first.

    Raises:
        PlanError: no conda packages are known for that architecture.
    """
    return tuple(closure.python for closure in _closures(_subdir(architecture)))


def closure(python: str, architecture: str) -> Closure:
    """The packages of a bare environment with that Python.

    Raises:
        PlanError: there is no lock for that Python or architecture.
    """
    known = {found.python: found for found in _closures(_subdir(architecture))}
    if python not in known:
        raise PlanError(
            [
                f"environment.python: there is no lock for Python {python} on {architecture}. "
                f"Choose one of {', '.join(known)}, or give `environment.lock_file`."
            ]
        )
    return known[python]


def explicit_lock(python: str, architecture: str, channel: str) -> str:
    """The text of an explicit file, for `conda create --file`, with every package and its hash.

    conda reads sha256 hashes in it from 24.9.0 on (conda/conda#14048); older ones know md5 only. conda
    installs such a file without a solver, in the order of its lines.

    Args:
        python: "3.12".
        architecture: as `uname -m` says it.
        channel: base address of a copy of the conda-forge channel, above `linux-64/` and `noarch/`.

    Raises:
        PlanError: there is no lock for that Python or architecture, or the channel is no address.
    """
    if not re.fullmatch(r"(https?|file)://[^\s#]+", channel):
        raise PlanError(
            [
                f"sources.conda_channel: {channel!r} is no address. "
                "Write one such as 'https://conda.anaconda.org/conda-forge'."
            ]
        )
    base = channel.rstrip("/")
    wanted = closure(python, architecture)
    lines = [f"{base}/{package.subdir}/{package.file}#sha256:{package.sha256}" for package in wanted.packages]
    return "\n".join([f"# platform: {wanted.subdir}", "@EXPLICIT", *lines, ""])


def _subdir(architecture: str) -> str:
    if architecture not in SUBDIRS:
        raise PlanError(
            [
                f"architecture: no conda packages are known for {architecture}. "
                f"Use a host that is one of {', '.join(SUBDIRS)}."
            ]
        )
    return SUBDIRS[architecture]


@lru_cache
def _closures(subdir: str) -> tuple[Closure, ...]:
    packages = {
        f"{row['subdir']}/{row['file']}": Package(**{**row, "needs": tuple(row["needs"])})
        for row in tables.read("conda")["package"]
    }
    return tuple(
        Closure(
            python=row["version"],
            release=row["release"],
            subdir=row["subdir"],
            virtual=tuple(row["virtual"]),
            packages=tuple(packages[path] for path in row["packages"]),
            source=row["source"],
        )
        for row in tables.read("conda")["python"]
        if row["subdir"] == subdir
    )
