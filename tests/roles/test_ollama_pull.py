"""Pulls that are held to a lock: the program that pulls, the stand-in for Ollama, and its registry."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ops.render import render
from plan import lock, lock_diff, lock_make, lock_tags, ollama_registry
from plan.host import CreatedPlan
from plan.probe import parse
from plan.seen import Seen
from tests.lab.hubs.ollama import registry
from tests.lab.hubs.ollama.stand_in.store import Store
from tests.plan import wheel_index
from tests.plan.locks import closure, listed, locked
from tests.roles.fleet import FakeHost, Run, deploy
from tests.roles.ollama_hosts import BARE, TAG, blobs, manifest, planned, pulled, small, with_ollama
from tests.roles.test_bundle import HELD as OF_A_BUNDLE
from tests.roles.test_bundle import MEDIA, SYSTEM

PATH = "registry.ollama.ai/library/qwen2.5/0.5b"
STAND_IN = Path(registry.__file__).with_name("stand_in")
SEEN = Seen("@fake/small", small(), BARE)


class Registry:
    """The stand-in registry below `root`, at `url`."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url
        registry.write(root)

    @property
    def manifest(self) -> Path:
        return self.root / "registry.ollama.ai/v2/library/qwen2.5/manifests/0.5b"

    def move(self) -> None:
        """Another licence under the same name."""
        found = json.loads(self.manifest.read_text())
        blobs = self.manifest.parents[1] / "blobs"
        found["layers"][-1] = registry.layer(f"{registry.KIND}license", b"Other words.", blobs)
        self.manifest.write_text(json.dumps(found))

    def layers(self) -> str:
        """What the program is told of them."""
        return ollama_registry.digest(self.tag().layers)

    def tag(self, name: str = TAG, proxy: str | None = None) -> lock.Tag:
        """What is listed of a model, over a transport that finds this registry under the real one's name."""

        def answer(request: httpx.Request) -> httpx.Response:
            file = self.root / request.url.host / request.url.path.lstrip("/")
            return httpx.Response(200, content=file.read_bytes()) if file.is_file() else httpx.Response(404)

        return ollama_registry.listed(name, proxy, httpx.MockTransport(answer))


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Registry]:
    root = tmp_path / "registry"
    root.mkdir()
    with wheel_index.served(root) as url:
        yield Registry(root, url.removesuffix("/simple"))


class Host:
    """A store, and the program that pulls into it."""

    def __init__(self, root: Path, there: Registry, asks: bool) -> None:
        self.store = root / "store"
        home = root / "home"
        shutil.copytree(STAND_IN, home / "stand_in")
        (home / "version").write_text("0.40.2")
        (home / "registries").write_text(there.url)
        start = f"import sys; sys.path.insert(0, '{home}'); from stand_in.client import main; main()"
        self.ollama = self._program(home / "ollama", f'exec {sys.executable} -I -c "{start}" "$@"')
        # the real registry's name leads to the stand-in, or nowhere
        base = f"{there.url}/registry.ollama.ai" if asks else "http://127.0.0.1:9"
        self._program(
            root / "bin" / "curl",
            "for word; do shift; case $word in https://registry.ollama.ai*) "
            f"word={base}${{word#https://registry.ollama.ai}} ;; esac; "
            'set -- "$@" "$word"; done; exec /usr/bin/curl "$@"',
        )
        self.path = f"{root / 'bin'}:{os.environ['PATH']}"

    def _program(self, path: Path, body: str) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def pull(self, layers: str) -> subprocess.CompletedProcess[str]:
        return self.run("pull", TAG, PATH, layers)

    def run(self, *asked: str) -> subprocess.CompletedProcess[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        variables = {
            "PATH": self.path,
            "HOME": str(self.store.parent),
            "OLLAMA_MODELS": str(self.store),
            "OLLAMA_HOST": f"127.0.0.1:{port}",
        }
        program = self.store.with_suffix(".sh")
        program.write_text(render("ollama/ollama_models.sh"))
        words = ["sh", str(program), str(self.ollama), *asked]
        # a file, because a child of the program that still sleeps would keep a pipe open
        said = self.store.with_suffix(".log")
        with said.open("w") as log:
            done = subprocess.run(words, env=variables, stdout=log, stderr=log, timeout=120, check=False)
        return subprocess.CompletedProcess(words, done.returncode, said.read_text(), "")

    def files(self) -> dict[str, str]:
        """Path -> sha256 of what the store has."""
        return {
            str(path.relative_to(self.store)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.store.rglob("*")
            if path.is_file()
        }

    def served(self) -> list[str]:
        """The models of the store that the stand-in would answer for."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OLLAMA_MODELS", str(self.store))
            there = Store()
            return [str(name) for name in there.names() if there.whole(name)]

    @property
    def stored(self) -> bool:
        return (self.store / "manifests" / PATH).is_file()


@pytest.mark.parametrize("asks", [True, False], ids=["registry answers", "registry says nothing"])
def test_the_layers_of_the_lock_are_pulled_and_no_others(there: Registry, tmp_path: Path, asks: bool) -> None:
    layers = there.layers()
    host = Host(tmp_path / "one", there, asks)
    done = host.pull(layers)
    assert (done.returncode, host.stored) == (0, True), done.stdout
    there.move()
    other = Host(tmp_path / "other", there, asks)
    done = other.pull(layers)
    whose = "its registry has" if asks else "what was pulled has"
    assert done.returncode == 1
    assert (
        f"error: {TAG}: {whose} other layers than the lock. Run 'python -m plan lock --upgrade {TAG}', or "
        "name one that has them" in done.stdout
    )
    assert not other.stored
    assert other.pull("any").returncode == 0


def test_a_model_made_from_a_modelfile_is_forgotten_as_such(there: Registry, tmp_path: Path) -> None:
    host = Host(tmp_path, there, asks=True)
    (tmp_path / "modelfile").write_text(f"FROM {TAG}\nSYSTEM Be kind.\n")
    made = ("create", "desk", str(tmp_path / "modelfile"), "0" * 12)
    done = host.run("pull", TAG, PATH, "any", *made)
    (record,) = (host.store / "created").iterdir()
    assert (done.returncode, record.read_text()) == (0, f"desk {'0' * 12}\n")
    done = host.run("remove", "desk", "forget", "desk")
    assert (done.returncode, host.served(), record.exists()) == (0, [TAG], False), done.stdout


def test_a_lock_has_the_layers_until_the_model_is_upgraded(there: Registry) -> None:
    first = lock_make.make([SEEN], None, (), listed, there.tag, closure).lock
    assert first.hosts[SEEN.host].tags == [TAG]
    assert len(first.tag[TAG].layers) == 4
    assert lock.parse(lock.render(first, "fleet.py"), "fleet.lock") == first
    there.move()
    assert lock_make.make([SEEN], first, (), listed, there.tag, closure).lock == first
    moved = lock_make.make([SEEN], first, (TAG,), listed, there.tag, closure).lock
    assert list(lock_diff.lines(first, moved)) == ["@fake/small:", f"  model {TAG} has other layers"]


def test_a_name_that_the_registry_has_not_is_in_no_lock_and_said(there: Registry) -> None:
    there.manifest.unlink()
    made = lock_make.make([SEEN], None, (), listed, there.tag, closure)
    assert made.lock.tag == {}
    assert "manifests/0.5b answered 404. Correct the model's name." in " ".join(made.notes)


class TestFromABundle:
    """The same program, and a directory as `python -m plan bundle` makes it."""

    @pytest.fixture
    def bundle(self, there: Registry) -> Path:
        root = there.root / "ollama-models"
        (root / "manifests" / PATH).parent.mkdir(parents=True)
        (root / "blobs").mkdir()
        shutil.copy(there.manifest, root / "manifests" / PATH)
        for blob in (there.manifest.parents[1] / "blobs").iterdir():
            shutil.copy(blob, root / "blobs" / blob.name.replace(":", "-"))
        return root

    def take(self, host: Host, held: lock.Tag, url: str) -> subprocess.CompletedProcess[str]:
        return host.run("take", TAG, PATH, held.manifest, url)

    @pytest.mark.parametrize("kind", ["directory", "url"])
    def test_the_store_is_as_the_lock_and_no_registry_is_asked(
        self, there: Registry, bundle: Path, tmp_path: Path, kind: str
    ) -> None:
        held, host = there.tag(), Host(tmp_path, there, asks=False)
        # what another layout of the store had of it before
        former = host.store / "manifests-v2/ollama.com/library/qwen2.5/0.5b"
        former.parent.mkdir(parents=True)
        former.write_text("{}")
        url = f"file://{bundle}" if kind == "directory" else f"{there.url}/ollama-models"
        done = self.take(host, held, url)
        assert done.returncode == 0, done.stdout
        assert host.files() == {
            f"manifests/{PATH}": held.manifest,
            **{f"blobs/sha256-{layer[7:]}": layer[7:] for layer in held.layers},
        }
        assert host.served() == [TAG]

    def test_what_a_cut_run_left_is_gone_on_with(self, there: Registry, bundle: Path, tmp_path: Path) -> None:
        held, host = there.tag(), Host(tmp_path, there, asks=False)
        largest = max((bundle / "blobs").iterdir(), key=lambda path: path.stat().st_size)
        part = host.store / "blobs" / f"{largest.name}.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(largest.read_bytes()[:1_000_000])
        # its beginning is not read again
        with largest.open("r+b") as stream:
            stream.write(b"other")
        done = self.take(host, held, f"file://{bundle}")
        assert done.returncode == 0, done.stdout
        assert host.files()[f"blobs/{largest.name}"] == largest.name.removeprefix("sha256-")

    @pytest.mark.parametrize("kind", ["damaged", "missing"])
    def test_a_file_with_other_bytes_is_refused_by_name_and_nothing_is_served(
        self, there: Registry, bundle: Path, tmp_path: Path, kind: str
    ) -> None:
        held, host = there.tag(), Host(tmp_path, there, asks=False)
        largest = max((bundle / "blobs").iterdir(), key=lambda path: path.stat().st_size)
        if kind == "damaged":
            with largest.open("r+b") as stream:
                stream.write(b"0")
        else:
            largest.unlink()
        done = self.take(host, held, f"{there.url}/ollama-models")
        assert done.returncode == 1
        why = "has other bytes than the lock" if kind == "damaged" else "cannot be brought to"
        assert f"error: {there.url}/ollama-models/blobs/{largest.name} {why}" in done.stdout
        assert not host.stored and f"blobs/{largest.name}" not in host.files()


class TestADeploy:
    held = locked(SEEN).lock
    layers = ollama_registry.digest(held.tag[TAG].layers)

    def test_pulls_the_layers_of_the_lock(self) -> None:
        run = deploy(FakeHost("small", BARE, small()), lock=lock.render(self.held, "fleet.py"))
        assert pulled(run)[-4:] == ["pull", TAG, PATH, self.layers]

    def test_pulls_again_where_the_host_has_others(self) -> None:
        version = str(self.held.hosts[SEEN.host].ollama).split()[0]
        lines = (f"version {version}", manifest(PATH, 1, 2), *blobs(1, 2))
        there = FakeHost("small", with_ollama(*lines), small())
        run = deploy(there, lock=lock.render(self.held, "fleet.py"))
        assert "start ollama-models" not in run.kinds("small")
        older = with_ollama(lines[0], manifest(PATH, 1, 3), *blobs(1, 3))
        run = deploy(dataclasses.replace(there, probe=older), lock=lock.render(self.held, "fleet.py"))
        assert pulled(run)[-1] == self.layers

    def test_restarts_what_serves_other_layers(self) -> None:
        (service,) = lock_tags.held(planned(small()), self.held).services
        for sizes, there in (((1, 2), True), ((1, 3), False)):
            assert service.model.there(parse(with_ollama(manifest(PATH, *sizes), *blobs(*sizes)))) is there

    def test_makes_a_model_of_a_modelfile_anew_with_its_base(self, tmp_path: Path) -> None:
        (tmp_path / "desk").write_text(f"FROM {TAG}\n")
        plan = planned(small(model="desk", ollama={"modelfile": str(tmp_path / "desk")}))
        layers = {f"sha256:{3:064x}": 3}
        moved = self.held.model_copy(
            update={"tag": {TAG: self.held.tag[TAG].model_copy(update={"layers": layers})}}
        )
        plans = (plan, lock_tags.held(plan, self.held), lock_tags.held(plan, moved))
        served = [held.services[0].model for held in plans]
        digests = {model.digest for model in served if isinstance(model, CreatedPlan)}
        assert len(digests) == 3
        assert served == [held.ollama.tags[1] for held in plans if held.ollama]

    def test_refuses_a_model_that_the_lock_has_not(self) -> None:
        other = small(model="qwen2.5:7b")
        run = deploy(FakeHost("small", BARE, other), lock=lock.render(self.held, "fleet.py"))
        assert run.kinds("small") == ["probe"]
        assert "fleet.lock has no qwen2.5:7b for it. Run" in " ".join(run.output.split())


class TestADeployFromABundle:
    entry = TestADeploy.held.hosts[SEEN.host].model_copy(update={"packages": SYSTEM})
    held = TestADeploy.held.model_copy(update={"hosts": {SEEN.host: entry}, "packages": OF_A_BUNDLE.packages})
    text = lock.render(held, "fleet.py")
    whole = (manifest(PATH, 1, 2), *blobs(1, 2))

    def from_place(self, place: str, probe: str = BARE) -> Run:
        run = deploy(FakeHost("small", probe, small() | {"sources": {"bundle": place}}), lock=self.text)
        assert run.code == 0, run.output
        return run

    def test_checks_the_models_first_and_pulls_nothing(self) -> None:
        run = self.from_place(MEDIA)
        wanted = run.files("small")["/run/bringup/bundle-wanted"]
        assert f"ollama-models/manifests/{PATH} {'c' * 64}\n" in wanted
        assert f"ollama-models/blobs/sha256-{1:064x} {1:064x}\n" in wanted
        kinds = run.kinds("small")
        assert kinds.index("join bundle") < kinds.index("start ollama-models")
        assert pulled(run)[-5:] == ["take", TAG, PATH, "c" * 64, f"file://{MEDIA}/ollama-models"]
        assert "pull" not in pulled(run)

    def test_brings_them_from_a_url_to_their_place_at_once(self) -> None:
        run = self.from_place("http://10.1.0.9:9280")
        assert "ollama-models/" not in run.files("small")["/run/bringup/bundle-wanted"]
        assert pulled(run)[-1] == "http://10.1.0.9:9280/ollama-models"

    def test_takes_nothing_where_they_are(self) -> None:
        version = str(self.entry.ollama).split()[0]
        run = self.from_place(MEDIA, with_ollama(f"version {version}", *self.whole))
        assert "ollama-models/" not in run.files("small").get("/run/bringup/bundle-wanted", "")
        assert "start ollama-models" not in run.kinds("small")
