"""Where the files of a bundle are fetched from, by the sources that the inventory's hosts have."""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlencode

import tomli

from plan import archives, bundle, ollama_registry, sources, tokens, uv
from plan.bundle import File
from plan.errors import PlanError
from plan.lock import Lock, Stack
from plan.places import Place
from plan.sections import Settings, Sources


@dataclass(frozen=True)
class Found:
    """A file, where it is, the first choice first, and what a request to each of these carries."""

    file: File
    urls: tuple[str, ...]
    headers: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)


def find(lock: Lock, settings: Mapping[str, Settings], kinds: Iterable[str]) -> list[Found]:
    """The addresses of everything that the lock names, of these kinds.

    Args:
        lock: what to fetch.
        settings: of the hosts; what none of them names comes from the default sources.
        kinds: of `bundle.KINDS`.

    Raises:
        PlanError: the sources do not have what the lock names.
    """
    wanted = [file for file in bundle.files(lock) if file.kind in kinds]
    finder = _Finder(lock, settings)
    found = [finder.address(file) for file in wanted if file.kind != "wheels"]
    if "wheels" in kinds:
        found += finder.wheels([file for file in wanted if file.kind == "wheels"])
    return found


class _Finder:
    def __init__(self, lock: Lock, settings: Mapping[str, Settings]) -> None:
        self.lock = lock
        self.settings = settings

    def _of(self, part: str) -> list[Settings]:
        """The settings of the hosts that get a part of the lock; the default ones when none is known."""
        named = [
            self.settings[name]
            for name, host in self.lock.hosts.items()
            if part in (host.stack, host.ollama, host.packages, *host.models) and name in self.settings
        ]
        return named or [Settings()]

    def address(self, file: File) -> Found:
        """Where a file is that is no wheel."""
        asked = {
            "conda": self._conda,
            "installers": self._installer,
            "ollama": self._ollama,
            "packages": self._package,
        }
        if file.kind == "ollama-models":
            return _of_registry(file)
        if file.kind == "models":
            return self._model(file)
        return Found(file, tuple(dict.fromkeys(asked[file.kind](file))))

    def _conda(self, file: File) -> Iterator[str]:
        for entry in self.lock.stack[file.of].conda:
            if bundle.channel_path(entry).endswith(f"/{file.name}"):
                if "://" in entry:
                    yield entry
                    continue
                for settings in [*self._of(file.of), Settings()]:
                    base = sources.address(settings.sources, "conda_channel")
                    yield f"{base or sources.CONDA_FORGE}/{entry}"

    def _installer(self, file: File) -> Iterator[str]:
        stack = self.lock.stack[file.of]
        architecture = stack.platform.partition("-manylinux")[0]
        for settings in self._of(file.of):
            known = sources.installer(settings.sources, architecture)
            if known.sha256 == stack.installer.sha256:
                yield from known.urls
        yield stack.installer.url

    def _ollama(self, file: File) -> Iterator[str]:
        version, _, architecture = file.of.partition(" ")
        pinned = {"ollama_version": version, "ollama_sha256": file.sha256}
        for settings in self._of(file.of):
            yield from archives.ollama(settings.sources.model_copy(update=pinned), architecture).urls

    def _package(self, file: File) -> Iterator[str]:
        yield self.lock.packages[file.of].files[file.name].url

    def _model(self, file: File) -> Found:
        model, _, revision = file.of.partition("@")
        commit = self.lock.model[file.of].commit or revision
        path = file.path.split(f"/{commit}/", 1)[1]
        urls: dict[str, Mapping[str, str]] = {}
        for settings in self._of(file.of):
            given = tokens.read(settings.models)
            for place in sources.model_places(settings.sources):
                if place.on_the_net or place.kind == "operator":
                    urls.setdefault(_model_url(place, model, commit, path), given.headers(place.kind))
        return Found(file, tuple(urls), urls)

    def wheels(self, files: list[File]) -> list[Found]:
        """Every wheel with its address, as uv finds it; and uv's own."""
        by_stack: dict[str, list[File]] = {}
        for file in files:
            by_stack.setdefault(file.of, []).append(file)
        urls: dict[str, str] = {}
        own: dict[str, File] = {}
        for name, stack in self.lock.stack.items():
            there = _addresses(stack, self._of(name)[0].sources)
            urls |= {digest: url for digest, (url, _) in there.items()}
            for digest in stack.uv.sha256:
                if digest in there:
                    url, size = there[digest]
                    own[digest] = File("wheels", f"wheels/{_name(url)}", name, digest, size)
        missing = [file.name for file in files if file.sha256 not in urls]
        if missing:
            raise PlanError(
                [f"wheels: the sources have no {missing[0]} with the bytes of the lock. Correct `sources`."]
            )
        return [Found(file, (urls[str(file.sha256)],)) for file in (*files, *own.values())]


def _of_registry(file: File) -> Found:
    """A manifest, which its name may no longer stand for, or a layer."""
    by_hash = f"sha256:{file.sha256}"
    if not file.path.startswith(f"{bundle.MANIFESTS}/"):
        return Found(file, (ollama_registry.url(file.of, "blobs", by_hash),))
    urls = (ollama_registry.url(file.of), ollama_registry.url(file.of, "manifests", by_hash))
    return Found(file, urls, {one: {"Accept": ollama_registry.ACCEPT} for one in urls})


def _model_url(place: Place, model: str, commit: str, path: str) -> str:
    if place.kind == "huggingface":
        return f"{place.address}/{model}/resolve/{commit}/{quote(path)}"
    if place.kind == "mirror":
        return f"{place.address}/{model}/{commit}/{quote(path)}"
    if place.kind == "operator":
        return (Path(place.address).expanduser().absolute() / model / path).as_uri()
    query = urlencode({"Revision": commit, "FilePath": path})
    return f"{place.address}/api/v1/models/{model}/repo?{query}"


def _name(url: str) -> str:
    return unquote(url.partition("#")[0].rpartition("/")[2])


def _addresses(stack: Stack, chosen: Sources) -> dict[str, tuple[str, int | None]]:
    """sha256 -> address and size of the wheels that the sources have of a stack's requirements, and of uv."""
    uv_hashes = " ".join(f"--hash=sha256:{digest}" for digest in stack.uv.sha256)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        # dependencies of these are none of its business: all are named
        (scratch / "wanted.txt").write_text(f"{stack.requirements}uv=={stack.uv.version} {uv_hashes}\n")
        done = _ask(scratch, stack, chosen)
        if done.returncode:
            raise PlanError([f"wheels: {uv.sentence(done.stderr)}"])
        lock = tomli.loads((scratch / "pylock.toml").read_text())
        folder_of_lock = scratch.resolve()
    rows = [wheel for package in lock.get("packages", ()) for wheel in package.get("wheels", ())]
    return {
        row["hashes"]["sha256"]: (
            str(row.get("url") or (folder_of_lock / row["path"]).as_uri()),
            row.get("size"),
        )
        for row in rows
        if "sha256" in row.get("hashes", {})
    }


def _ask(folder: Path, stack: Stack, chosen: Sources) -> subprocess.CompletedProcess[str]:
    command = [*uv.command(), "pip", "compile", "--quiet", "--no-deps", "--no-header", "--no-annotate"]
    command += ["--only-binary", ":all:", "--format", "pylock.toml", "--output-file", "pylock.toml"]
    command += ["--python-version", stack.python, "--python-platform", stack.platform]
    # whichever has it: the hashes decide
    command += ["--index-strategy", "unsafe-best-match", *_index_options(stack, chosen), "wanted.txt"]
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | uv.VARIABLES,
        capture_output=True,
        text=True,
        timeout=uv.TIMEOUT_SECONDS,
        check=False,
    )


def _index_options(stack: Stack, chosen: Sources) -> list[str]:
    """The sources' index options, with those of torch and vLLM that builds of their own come from."""
    pins = {name: version for part in stack.pins.values() for name, version in part.items()}
    wheels = sources.address(chosen, "wheels")
    options = ["--default-index", wheels] if wheels else []
    own = list(chosen.wheels_extra)
    if not chosen.wheels_links or chosen.torch:
        _, _, tag = pins.get("torch", "").partition("+")
        own += [f"{sources.address(chosen, 'torch')}/{tag}"] if tag else []
    if not chosen.wheels_links or chosen.vllm:
        version, _, variant = pins.get("vllm", "").partition("+")
        own += [f"{sources.address(chosen, 'vllm')}/{version}/{variant}"] if variant else []
    for url in own:
        options += ["--index", url]
    for url in chosen.wheels_links:
        options += ["--find-links", url]
    return options
