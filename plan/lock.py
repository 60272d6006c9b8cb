"""The lock of an inventory: what its hosts get, with every hash. TOML, ordered, one thing a line.

It lies beside the inventory (`prod.py`, `prod.lock`) and is committed with it. Hosts that get the same share
one stack. Who merges two locks merges lines; `parse` refuses what does not fit together afterwards.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import tomli
from pydantic import Field, StringConstraints, ValidationError

from plan.errors import SettingsError
from plan.sections.base import Section, Sha256, Url, Version
from plan.sections.driver import Release

FORMAT = 1
# The parts of a stack that are tables of their own.
_TABLES = ("instead_of", "pins", "constraints", "conda", "wheels")
# distribution==version, as a requirements file has it
Requirement = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,100}==[0-9][A-Za-z0-9.+!]{0,60}$")
]
Distribution = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}(\[[a-z0-9,_-]+\])?$")
]
WheelFile = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!%-]{0,250}\.whl$")]
CondaHash = Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64}|[0-9a-f]{32,64})$")]
CondaFile = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~%+/:=@!-]+\.(conda|tar\.bz2)$")]
PackageFile = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~%^-]{0,250}\.(deb|rpm)$")]
Day = Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9.+_-]{0,100}$")]
PackageVersion = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.+:~_^-]{0,100}$")]
WORD_SIGNS = 400
Word = Annotated[str, StringConstraints(pattern=rf"^[^\x00-\x1f]{{0,{WORD_SIGNS}}}$")]


class Wheel(Section):
    """A wheel that may be installed for a requirement. `size` in bytes; None where its index does not say."""

    file: WheelFile
    sha256: Sha256
    size: int | None = None


class Uv(Section):
    """uv itself: its version, and the sha256 of every file that may be it."""

    version: Version
    sha256: list[Sha256]


class Installer(Section):
    """The Miniforge installer."""

    url: Url
    sha256: Sha256


class Stack(Section):
    """One environment, whole.

    Attributes:
        made_by: what produced it.
        resolved: the day up to whose end releases were considered, UTC.
        platform: uv's name of the CPU and C library that its wheels are for.
        instead_of: `vllm VERSION` -> why that, the newer choice, was not taken.
        pins: distribution -> exact version, per part, as `EnvironmentPlan` has them.
        constraints: versions that what the pins bring along was held to.
        conda: `SUBDIR/FILE` below the channel, or a whole URL -> hash, in the order of installation.
        wheels: `distribution==version` -> the files that may be it.
    """

    made_by: Word
    resolved: Day | None = None
    python: Version
    platform: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,60}$")]
    instead_of: dict[Word, Word] = Field(default_factory=dict)
    installer: Installer
    uv: Uv
    pins: dict[str, dict[Distribution, Version]]
    constraints: dict[Distribution, Version]
    conda: dict[CondaFile, CondaHash]
    wheels: dict[Requirement, list[Wheel]]

    @property
    def requirements(self) -> str:
        """The closure as a requirements file with hashes."""
        return "".join(
            " ".join([requirement, *(f"--hash=sha256:{wheel.sha256}" for wheel in wheels)]) + "\n"
            for requirement, wheels in self.wheels.items()
        )

    @property
    def versions(self) -> dict[str, str]:
        """Distribution -> version of the closure."""
        return dict(requirement.split("==") for requirement in self.wheels)


class File(Section):
    """A file of a model; `size` in bytes. `sha256` is None where the hub does not say it."""

    size: int
    sha256: Sha256 | None = None


class Model(Section):
    """A model at one commit; None where its hub did not say which."""

    made_by: Word
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = None
    files: dict[Word, File]


class Tag(Section):
    """A model of an Ollama registry. `manifest`: sha256 of its manifest; `layers`: digest -> bytes."""

    made_by: Word
    manifest: Sha256
    layers: dict[Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")], int]


class Package(Section):
    """A package of the distribution, as its mirror has it; `size` in bytes."""

    url: Url
    size: int
    sha256: Sha256


class Packages(Section):
    """What roles install from the distribution, with all that it needs on a bare system: file -> package."""

    made_by: Word
    files: dict[PackageFile, Package]


class Archive(Section):
    """Ollama's release archive of one architecture."""

    made_by: Word
    file: Word
    sha256: Sha256


class Driver(Section):
    """The NVIDIA driver of hosts that have the same.

    Attributes:
        made_by: what said so.
        release: of the driver and all that must be of the same; None while only its branch is known.
        modules: flavour of the kernel modules; None where nobody knows it.
        source: "nvidia", "distribution", or "host" for a driver that is kept as it is.
        packages: name -> version as dpkg or rpm gives it, with what belongs to the driver.
    """

    made_by: Word
    release: Release | None = None
    modules: Annotated[str, StringConstraints(pattern=r"^(open|proprietary)$")] | None = None
    source: Annotated[str, StringConstraints(pattern=r"^(nvidia|distribution|host)$")]
    packages: dict[PackageName, PackageVersion] = Field(default_factory=dict)


class Host(Section):
    """What one host gets: names of the other parts of the lock."""

    stack: Word | None = None
    models: list[Word] = Field(default_factory=list)
    tags: list[Word] = Field(default_factory=list)
    ollama: Word | None = None
    driver: Word | None = None
    packages: Word | None = None


class Lock(Section):
    """The whole lock."""

    format: int = FORMAT
    hosts: dict[Word, Host]
    stack: dict[Word, Stack] = Field(default_factory=dict)
    ollama: dict[Word, Archive] = Field(default_factory=dict)
    model: dict[Word, Model] = Field(default_factory=dict)
    packages: dict[Word, Packages] = Field(default_factory=dict)
    driver: dict[Word, Driver] = Field(default_factory=dict)
    tag: dict[Word, Tag] = Field(default_factory=dict)


def path_of(inventory: Path) -> Path:
    """Where the lock of an inventory lies."""
    return inventory.with_suffix(".lock")


def read(path: Path) -> Lock:
    """The lock in a file.

    Raises:
        SettingsError: it cannot be read, or is no lock.
    """
    try:
        return parse(path.read_text(), path.name)
    except FileNotFoundError:
        raise SettingsError(
            [f"lock: {path}: there is none. Make it with `python -m plan lock INVENTORY`, or name another."]
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise SettingsError(
            [f"lock: {path}: {reason}. Mend it, or remove it and run `python -m plan lock`."]
        ) from None


def parse(text: str, name: str) -> Lock:
    """The lock of this text; `name` is the file's, for the sentences.

    Raises:
        SettingsError: it is no lock, or parts are missing that its hosts name.
    """
    fix = "Mend it, or remove it and run `python -m plan lock`."
    try:
        lock = Lock.model_validate(tomli.loads(text))
    except tomli.TOMLDecodeError as error:
        raise SettingsError([f"lock: {name}: {error}. {fix}"]) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError([f"lock: {name}: {where}: {first['msg'].rstrip('.')}. {fix}"]) from None
    if lock.format != FORMAT:
        raise SettingsError([f"lock: {name}: is of format {lock.format}, known here is {FORMAT}. {fix}"])
    missing = sorted(set(_missing(lock)))
    if missing:
        raise SettingsError([f"lock: {name}: lacks {', '.join(missing)}, which its hosts name. {fix}"])
    return lock


def _missing(lock: Lock) -> Iterator[str]:
    for host in lock.hosts.values():
        if host.stack is not None and host.stack not in lock.stack:
            yield f'stack."{host.stack}"'
        if host.ollama is not None and host.ollama not in lock.ollama:
            yield f'ollama."{host.ollama}"'
        yield from (f'model."{name}"' for name in host.models if name not in lock.model)
        yield from (f'tag."{name}"' for name in host.tags if name not in lock.tag)
        # locks of earlier versions had no sections of drivers
        if lock.driver and host.driver is not None and host.driver not in lock.driver:
            yield f'driver."{host.driver}"'
        if host.packages is not None and host.packages not in lock.packages:
            yield f'packages."{host.packages}"'


def render(lock: Lock, inventory: str) -> str:
    """The lock's text: the same for the same lock, whatever order it was put together in."""
    return "\n".join([*_lines(lock, inventory), ""])


def _lines(lock: Lock, inventory: str) -> Iterator[str]:
    yield f"# What the hosts of {inventory} get, with every hash, written by `python -m plan lock`. It moves"
    yield "# one thing with `--upgrade PACKAGE`. Commit it beside the inventory: a deploy is held to it."
    yield f"format = {lock.format}"
    yield from ("", "[hosts]")
    for name, host in sorted(lock.hosts.items(), key=lambda item: _natural(item[0])):
        entry = host.model_dump(exclude_none=True, exclude_defaults=True)
        yield f"{_text(name)} = {_value(entry)}"
    for name, archive in sorted(lock.ollama.items()):
        yield from _table(f"ollama.{_text(name)}", archive.model_dump(exclude_none=True))
    for name, model in sorted(lock.model.items()):
        yield from _table(f"model.{_text(name)}", model.model_dump(exclude_none=True), ("files",))
    for name, tag in sorted(lock.tag.items()):
        yield from _table(f"tag.{_text(name)}", tag.model_dump(), ("layers",))
    for name, driver in sorted(lock.driver.items()):
        plain = driver.model_dump(exclude_none=True)
        plain["packages"] = dict(sorted(plain["packages"].items()))
        yield from _table(f"driver.{_text(name)}", plain, ("packages",))
    for name, packages in sorted(lock.packages.items()):
        ordered = packages.model_dump() | {"files": dict(sorted(packages.model_dump()["files"].items()))}
        yield from _table(f"packages.{_text(name)}", ordered, ("files",))
    for name, stack in sorted(lock.stack.items()):
        plain = stack.model_dump(exclude_none=True)
        if not plain["instead_of"]:
            plain.pop("instead_of")
        # conda's packages keep their order: each comes after those that it needs
        plain["wheels"] = dict(sorted(plain["wheels"].items()))
        plain["constraints"] = dict(sorted(plain["constraints"].items()))
        yield from _table(f"stack.{_text(name)}", plain, _TABLES)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts gpu-2 before gpu-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _table(name: str, entries: Mapping[str, Any], below: Iterable[str] = ()) -> Iterator[str]:
    """A table; the entries named `below` become tables of their own, one thing a line."""
    below = tuple(below)
    yield from ("", f"[{name}]")
    yield from (f"{_key(key)} = {_value(value)}" for key, value in entries.items() if key not in below)
    for key in below:
        if key in entries:
            yield from ("", f"[{name}.{key}]")
            yield from (f"{_key(inner)} = {_value(value)}" for inner, value in entries[key].items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(part)}" for key, part in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return str(value) if isinstance(value, int) else _text(value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _text(text: str) -> str:
    """A TOML basic string; JSON writes the same one for text without control signs."""
    return json.dumps(text, ensure_ascii=False)
