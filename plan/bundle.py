"""What a bundle of a lock is: which files, where in its directory, and the index with the hash of each.

    wheels/FILE                      as the package index calls them
    conda/SUBDIR/FILE                a channel
    installers/FILE                  Miniforge
    ollama/vVERSION/FILE             Ollama's releases
    ollama-models/                   models of Ollama's registries, as its store has them: manifests/, blobs/
    models/ORG/NAME/COMMIT/PATH      models, each with its manifest
    packages/SYSTEM-CPU/FILE         the distribution's packages, with the index that apt or dnf reads
    packages/DRIVER/FILE             likewise, with all that a driver needs
    SHA256SUMS                       every file's hash; `sha256sum --check SHA256SUMS` reads it

Two files of one name lie in directories of their own, named by their hashes.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import unquote

from plan import ollama_registry
from plan.errors import PlanError
from plan.lock import Host, Lock, Stack, Tag
from plan.probe_models import MANIFEST

INDEX = "SHA256SUMS"
Kind = Literal["wheels", "conda", "installers", "ollama", "ollama-models", "models", "packages"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MANIFESTS = "ollama-models/manifests"
# What apt, or dnf, reads of a directory of packages.
APT_INDEX = "Packages"
DNF_INDEX = ("repodata/repomd.xml", "repodata/primary.xml", "repodata/filelists.xml")


@dataclass(frozen=True)
class File:
    """A file of a bundle.

    Attributes:
        path: below the bundle's directory.
        sha256: what it must be, where the lock says it; `md5` where it says no more than that.
        size: bytes, where the lock says them.
        of: what of the lock it belongs to: a stack, a model, an archive, the packages of a system.
    """

    kind: Kind
    path: str
    of: str
    sha256: str | None = None
    size: int | None = None
    md5: str | None = None

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]

    @property
    def digest(self) -> str | None:
        """Its hash, whichever the lock says."""
        return self.sha256 or self.md5


def files(lock: Lock) -> list[File]:
    """Everything that the lock names, each path once; not uv's wheel: its name is not known."""
    return list(_placed(lock).values())


def of_host(lock: Lock, host: str) -> list[File]:
    """What one host takes from the bundle, by the paths that it has there."""
    entry = lock.hosts.get(host)
    if entry is None:
        return []
    # hosts share files, whatever these belong to
    wanted = {(file.path, file.digest) for file in _of_host(lock, entry)}
    return [file for named, file in _placed(lock).items() if named in wanted]


def _placed(lock: Lock) -> dict[tuple[str, str | None], File]:
    """What the hosts get, each path once; where two files would have one, each lies in a directory named by
    its hash. By the path that it would have and by its hash.
    """
    by_path: defaultdict[str, dict[str | None, File]] = defaultdict(dict)
    for host in lock.hosts.values():
        for file in _of_host(lock, host):
            by_path[file.path].setdefault(file.digest, file)
    placed = {}
    for path, versions in by_path.items():
        for digest, file in versions.items():
            folder, _, name = path.rpartition("/")
            own = path if len(versions) == 1 else f"{folder}/{str(digest)[:12]}/{name}"
            placed[path, digest] = dataclasses.replace(file, path=own)
    return dict(sorted(placed.items(), key=lambda item: (KINDS.index(item[1].kind), item[1].path)))


def _of_host(lock: Lock, host: Host) -> Iterator[File]:
    if host.stack:
        yield from _of_stack(host.stack, lock.stack[host.stack])
    if host.ollama:
        archive = lock.ollama[host.ollama]
        version = host.ollama.partition(" ")[0]
        yield File("ollama", f"ollama/v{version}/{archive.file}", host.ollama, archive.sha256)
    for name in host.tags:
        yield from _of_tag(name, lock.tag[name])
    for name in host.models:
        model = lock.model[name]
        folder = f"models/{name.partition('@')[0]}/{model.commit}"
        for path, file in model.files.items():
            yield File("models", f"{folder}/{path}", name, file.sha256, file.size)
    # a driver's packages are called as the driver is
    for packages in (host.packages or "", host.driver or ""):
        for name, package in lock.packages[packages].files.items() if packages in lock.packages else ():
            path = f"packages/{folder_of(packages)}/{name}"
            yield File("packages", path, packages, package.sha256, package.size)


def _of_tag(name: str, tag: Tag) -> Iterator[File]:
    yield File("ollama-models", f"{MANIFESTS}/{ollama_registry.path(name)}", name, tag.manifest)
    for layer, size in tag.layers.items():
        path = f"ollama-models/blobs/{layer.replace(':', '-')}"
        yield File("ollama-models", path, name, layer.removeprefix("sha256:"), size)


def _of_stack(name: str, stack: Stack) -> Iterator[File]:
    installer = unquote(stack.installer.url.rpartition("/")[2])
    yield File("installers", f"installers/{installer}", name, stack.installer.sha256)
    for entry, hashed in stack.conda.items():
        kind, _, digest = hashed.rpartition(":")
        sha256 = digest if kind == "sha256" or len(digest) == 64 else None
        yield File("conda", f"conda/{channel_path(entry)}", name, sha256, md5=None if sha256 else digest)
    for wheels in stack.wheels.values():
        for wheel in wheels:
            yield File("wheels", f"wheels/{wheel.file}", name, wheel.sha256, wheel.size)


def channel_path(entry: str) -> str:
    """SUBDIR/FILE of a conda package that the lock names below the channel, or by a whole URL."""
    return "/".join(entry.rsplit("/", 2)[-2:])


def folder_of(packages: str) -> str:
    """The directory of a system's packages: `debian12-x86_64`."""
    return packages.replace(" ", "-")


def indexes(packages: Iterable[File]) -> list[str]:
    """The paths of what apt or dnf reads of the directories in which these packages lie."""
    folders = {(file.path.rpartition("/")[0], file.name.endswith(".rpm")) for file in packages}
    return [
        f"{folder}/{name}"
        for folder, is_rpm in sorted(folders)
        for name in (DNF_INDEX if is_rpm else (APT_INDEX,))
    ]


def unlisted(lock: Lock) -> list[str]:
    """What the lock names without saying what is in it, in sentences: a bundle would lack it."""
    found = [
        f"model {name}: the lock has {'no commit' if model.files else 'no list of its files'}"
        for name, model in lock.model.items()
        if not model.files or not model.commit
    ]
    bare = sorted(name for name, host in lock.hosts.items() if not host.packages)
    if bare:
        found.append(f"the distribution's packages of {', '.join(bare)} are not in the lock")
    return [f"{fact}. Run `python -m plan lock` where that can be asked." for fact in found]


def render(hashes: Mapping[str, str]) -> str:
    """The index's text, from path -> sha256."""
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(hashes.items()))


def parse(text: str) -> dict[str, str]:
    """Path -> sha256 of an index.

    Raises:
        PlanError: a line is no such entry, or names a path outside the bundle.
    """
    found = {}
    for line in text.splitlines():
        entry = re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line)
        if entry is None or entry[2].startswith("/") or ".." in entry[2].split("/"):
            raise PlanError([f"bundle: {INDEX}: {line[:80]!r} is no entry. Make the bundle anew."])
        found[entry[2]] = entry[1]
    return found


def is_manifest(path: str) -> bool:
    """Whether a path is that of a model's manifest, which the bundle makes itself."""
    return path.startswith("models/") and path.endswith(f"/{MANIFEST}")
