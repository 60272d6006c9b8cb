"""A deploy from a bundle: nothing else is asked, and a damaged file ends it before anything changes."""

from __future__ import annotations

import hashlib
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ops.render import render
from plan import bundle, bundled, lock, locking, settings
from plan.bundle_plan import SERVER_UNIT_FILE, STAGED, BundleServer
from plan.decide import plan_host
from plan.host import HostPlan
from plan.lock import Lock, Package, Packages
from plan.seen import Seen
from tests.plan.locks import GPU, ONE, locked
from tests.probes import with_block
from tests.roles.fleet import Exec, FakeHost, Run, deploy
from tests.roles.served import served
from tests.roles.test_lock import SEEN
from tests.roles.test_nvidia import ROCKY

DNF = Path(__file__).with_name("dnf")
SYSTEM = "debian12 x86_64"
DEB = "curl_7.88.1-10_amd64.deb"


def _with_commits(made: Lock) -> Lock:
    models = {name: model.model_copy(update={"commit": "c" * 40}) for name, model in made.model.items()}
    return made.model_copy(update={"model": models})


_made = _with_commits(locked(SEEN).lock)
HELD = _made.model_copy(
    update={
        "hosts": {
            name: _made.hosts[SEEN.host].model_copy(update={"packages": SYSTEM})
            for name in (SEEN.host, "@fake/other")
        },
        "packages": {
            SYSTEM: Packages(
                made_by="a test",
                files={DEB: Package(url="http://x.example/curl.deb", size=1, sha256="d" * 64)},
            )
        },
    }
)
TEXT = lock.render(HELD, "fleet.py")
MEDIA = "/media/bundle"


def from_place(place: str, **more: Any) -> dict[str, Any]:
    return ONE | {"sources": {"bundle": place}} | more


def applied(place: str) -> HostPlan:
    wanted = bundled.settings_in(settings.read([from_place(place)]), HELD, SEEN.host, place)
    bound = locking.held(wanted, SEEN.host, HELD)
    plan = plan_host(SEEN.host, bound, SEEN.parsed(), pins=locking.pins(wanted, SEEN.host, HELD))
    return bundled.apply(locking.apply(plan, wanted, SEEN.parsed(), HELD, "x"), wanted, HELD, place)


@pytest.fixture(scope="module")
def first() -> Run:
    return deploy(FakeHost("gpu", GPU, from_place(MEDIA)), lock=TEXT)


class TestADeploy:
    def test_checks_the_bundle_before_it_does_anything_else(self, first: Run) -> None:
        assert first.code == 0, first.output
        assert first.kinds("gpu")[:4] == [
            "probe",
            "write /run/bringup/bundle-wanted",
            "start bundle",
            "join bundle",
        ]
        wanted = first.files("gpu")["/run/bringup/bundle-wanted"]
        assert f"packages/debian12-x86_64/{DEB} {'d' * 64}\n" in wanted
        assert "=packages/debian12-x86_64/Packages\n" in wanted

    def test_asks_nobody_but_the_bundle(self, first: Run) -> None:
        sent = [f"{trip.command}\n{trip.files()}" for trip in first.execs["gpu"]]
        urls = {url for text in sent for url in re.findall(r"(?:https?|ftp)://[a-z0-9.:-]+", text)}
        assert {url for url in urls if "127." not in url and "example.org" not in url} <= {
            "https://github.com"  # pages that comments of units point at
        }
        installs = [text for text in sent if " pip install " in text]
        assert installs and all(f"--no-index --find-links {MEDIA}/wheels" in text for text in installs)
        environment = applied(MEDIA).environment
        assert environment and f"file://{MEDIA}/conda/" in environment.explicit_lock
        assert first.files("gpu")["/etc/bringup/apt.list"].endswith(
            f"deb [trusted=yes] file:{MEDIA}/packages/debian12-x86_64 ./\n"
        )

    def test_over_a_served_host_is_one_round_trip(self, first: Run) -> None:
        there = served(GPU, list[Exec](first.execs["gpu"]), applied(MEDIA))
        again = deploy(FakeHost("gpu", there, from_place(MEDIA)), lock=TEXT)
        assert again.kinds("gpu") == ["probe"]

    def test_that_a_host_no_longer_uses_leaves_no_package_sources(self, first: Run) -> None:
        there = served(GPU, list[Exec](first.execs["gpu"]), applied(MEDIA))
        later = deploy(FakeHost("gpu", there, ONE))
        (removal,) = [trip.command for trip in later.execs["gpu"] if "apt.list" in trip.command]
        assert "rm -rf -- /etc/bringup/apt.list /var/lib/bringup-apt" in removal

    def test_from_a_url_brings_it_and_takes_it_away_again(self) -> None:
        run = deploy(FakeHost("gpu", GPU, from_place("http://10.1.0.9:9280")), lock=TEXT)
        assert run.code == 0, run.output
        (start,) = [
            trip.command for trip in run.execs["gpu"] if "--unit=bringup-bundle.service" in trip.command
        ]
        assert f"set -- {STAGED} /run/bringup/bundle-wanted http://10.1.0.9:9280" in start
        assert f"remove {STAGED}" in run.kinds("gpu")
        assert "models/" not in run.files("gpu")["/run/bringup/bundle-wanted"]
        assert any("mirror+http://10.1.0.9:9280/models" in trip.command for trip in run.execs["gpu"])

    def test_on_rhel_dnf_reads_the_bundle_alone(self) -> None:
        rocky = with_block(with_block(GPU, "os", *ROCKY), "packages", "")
        system = Seen(SEEN.host, ONE, rocky, packages=(DNF / "closure.txt").read_text())
        held = lock.render(_with_commits(locked(system).lock), "fleet.py")
        run = deploy(FakeHost("gpu", rocky, from_place(MEDIA)), lock=held)
        assert run.code == 0, run.output
        files = run.files("gpu")
        assert (
            f"baseurl=file://{MEDIA}/packages/rhel9-x86_64\n" in files["/etc/bringup/yum.repos.d/bundle.repo"]
        )
        wanted = files["/run/bringup/bundle-wanted"]
        for path in ("nginx-core-1.20-1.el9.noarch.rpm", *bundle.DNF_INDEX):
            assert f"packages/rhel9-x86_64/{path} " in wanted
        calls = re.findall(r"dnf [^\n]*install[^\n]*", "\n".join(trip.command for trip in run.execs["gpu"]))
        assert calls and all("--setopt=reposdir=/etc/bringup/yum.repos.d" in call for call in calls)

    def test_without_a_lock_is_refused(self) -> None:
        run = deploy(FakeHost("gpu", GPU, from_place(MEDIA)))
        assert run.kinds("gpu") == ["probe"]
        assert "a bundle needs its lock beside the inventory" in run.output


class TestTheOperatorsMachine:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A bundle with a file for each that is wanted; their bytes are not what a lock has."""
        hashes = {}
        for number, file in enumerate(bundle.of_host(HELD, SEEN.host)):
            path = tmp_path / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(number))
            hashes[file.path] = str(file.sha256)
        (tmp_path / bundle.INDEX).write_text(bundle.render(hashes))
        return tmp_path

    def test_a_damaged_file_is_refused_by_name_and_nothing_is_sent(self, folder: Path) -> None:
        lines = [
            f"{path} {digest}" for path, digest in bundle.parse((folder / bundle.INDEX).read_text()).items()
        ]
        from ops.bundle_upload import _checked
        from plan.errors import PlanError

        with pytest.raises(PlanError, match=r"/conda/\S+ is damaged: it has other bytes"):
            _checked(folder, lines)


class TestServing:
    DATA = from_place(MEDIA, bundle={"serve_from": "@fake/gpu"})

    def test_one_host_serves_the_others_and_nobody_else(self) -> None:
        hosts = [
            FakeHost("gpu", with_address("10.1.0.9"), self.DATA | {"ssh_hostname": "10.1.0.9"}),
            FakeHost("other", GPU, self.DATA | {"ssh_hostname": "10.1.0.10"}),
        ]
        run = deploy(*hosts, lock=TEXT)
        assert run.code == 0, run.output
        kinds = run.kinds("gpu")
        assert kinds[1:5] == ["start bundle", "join bundle", "start bundle-packages", "join bundle-packages"]
        text = run.files("gpu")["/etc/bringup/bundle-server/nginx.conf"]
        assert "listen 10.1.0.9:9280;" in text
        assert re.findall(r"(?:allow|deny) [0-9a-z.]+", text)[:3] == [
            "allow 10.1.0.10",
            "allow 10.1.0.9",
            "deny all",
        ]
        (start,) = [
            trip.command for trip in run.execs["other"] if "--unit=bringup-bundle.service" in trip.command
        ]
        assert "http://10.1.0.9:9280" in start
        assert SERVER_UNIT_FILE not in run.files("other")

    def test_another_client_is_another_unit_so_that_a_cut_run_leaves_no_server_of_before(self) -> None:
        from roles.bundle.deploy import _server_files

        clients = [("10.1.0.10",), ("10.1.0.10", "10.1.0.11")]
        units = [_server_files(BundleServer("/media/bundle", "10.1.0.9", 9280, each))[1] for each in clients]
        assert units[0].path == SERVER_UNIT_FILE
        assert units[0].text != units[1].text

    def test_a_host_that_is_reached_elsewhere_is_refused(self) -> None:
        run = deploy(FakeHost("gpu", GPU, self.DATA | {"ssh_hostname": "10.9.9.9"}), lock=TEXT)
        assert run.kinds("gpu") == ["probe"]
        assert "10.9.9.9 is no address of @fake/gpu's own" in " ".join(run.output.split())

    def test_the_server_goes_when_the_settings_say_so(self) -> None:
        block = (
            "Id=bringup-bundle-server.service\nActiveState=active\nSubState=running\nUnitFileState=enabled\n"
        )
        data = from_place(MEDIA, bundle={"serve_from": "@fake/gpu", "state": "absent"})
        run = deploy(FakeHost("gpu", with_block(GPU, "units", block), data), lock=TEXT)
        assert "disable bringup-bundle-server.service" in run.kinds("gpu")


def with_address(address: str) -> str:
    lines = [line for line in GPU.partition("@@addresses\n")[2].partition("@@")[0].splitlines() if line]
    return with_block(GPU, "addresses", "\n".join([*lines, f"9: {address}/24"]))


class TestTheCheck:
    """The program itself, on this machine."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return made_bundle(tmp_path / "bundle")

    def test_says_what_it_found_right(self, root: Path) -> None:
        code, said = check(root, *WANTED)
        assert code == 0, said
        assert said.splitlines()[-1] == "4 files of the bundle, all verified"

    def test_names_the_file_with_a_flipped_bit(self, root: Path) -> None:
        (root / "conda/noarch/b.conda").write_bytes(b"twn")
        code, said = check(root, *WANTED)
        assert code == 1
        assert f"bundle: {root}/conda/noarch/b.conda is damaged" in said

    def test_does_not_read_what_this_host_does_not_take(self, root: Path) -> None:
        (root / "conda/noarch/b.conda").write_bytes(b"twn")
        assert check(root, WANTED[0])[0] == 0

    def test_names_what_the_bundle_lacks(self, root: Path) -> None:
        code, said = check(root, *WANTED, f"wheels/new.whl {'e' * 64}")
        assert code == 1
        assert "bundle: lacks wheels/new.whl (1 files) of the lock" in said

    def test_an_index_that_was_changed_along_with_a_file_does_not_help(self, root: Path) -> None:
        (root / "wheels/a b+1.whl").write_bytes(b"other")
        index(root)
        code, said = check(root, *WANTED)
        assert code == 1 and "lacks wheels/a" in said

    def test_apt_is_not_told_of_a_package_that_the_lock_has_not(self, root: Path) -> None:
        with (root / "packages/s/Packages").open("a") as stream:
            stream.write(f"\nPackage: evil\nSHA256: {'f' * 64}\n")
        index(root)
        code, said = check(root, *WANTED)
        assert code == 1 and "names a package that the lock has not (ffff" in said

    def test_nor_is_dnf_told_of_one_or_of_an_index_that_nobody_looked_at(self, root: Path) -> None:
        rpm = digest(b"rpm")
        (root / "packages/r/repodata").mkdir(parents=True)
        (root / "packages/r/a.rpm").write_bytes(b"rpm")
        primary = root / "packages/r/repodata/primary.xml"
        repomd = root / "packages/r/repodata/repomd.xml"
        wanted = [f"packages/r/a.rpm {rpm}"]
        wanted += [
            f"{path} ={path}"
            for path in ("packages/r/repodata/repomd.xml", "packages/r/repodata/primary.xml")
        ]
        for listed, place, word in (
            (rpm, "primary", ""),
            ("f" * 64, "primary", "f" * 64),
            (rpm, "other", "repodata/other.xml"),
        ):
            primary.write_text(f'  <checksum type="sha256" pkgid="YES">{listed}</checksum>\n')
            repomd.write_text(f'  <location href="repodata/{place}.xml"/>\n')
            index(root)
            code, said = check(root, *wanted)
            assert code == (1 if word else 0), said
            assert not word or f"names a package that the lock has not ({word})" in said

    @pytest.mark.parametrize("what", ["directory", "index"])
    def test_says_so_when_there_is_none(self, root: Path, what: str) -> None:
        (root / bundle.INDEX).unlink()
        code, said = check(root if what == "index" else root / "not", *WANTED)
        assert code == 1 and said.startswith("bundle: ")

    def test_brings_it_from_a_url_and_what_is_there_is_not_brought_again(
        self, root: Path, tmp_path: Path
    ) -> None:
        staged = tmp_path / "staged"
        with serving(root) as (url, asked):
            assert check(staged, *WANTED, url=url)[0] == 0
            assert (staged / "wheels/a b+1.whl").read_bytes() == b"one"
            before = len(asked)
            assert check(staged, *WANTED, url=url)[0] == 0
            assert [path for path in asked[before:] if not path.endswith(bundle.INDEX)] == []

    def test_brings_it_to_a_bare_host_that_has_no_curl(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        programs = tmp_path / "bin"
        programs.mkdir()
        for program in Path("/usr/bin").iterdir():
            if program.name != "curl":
                (programs / program.name).symlink_to(program)
        monkeypatch.setenv("PATH", str(programs))
        staged = tmp_path / "staged"
        with serving(root) as (url, asked):
            assert check(staged, *WANTED, url=url)[0] == 0
            assert (staged / "wheels/a b+1.whl").read_bytes() == b"one"
            assert len(asked) == len(WANTED) + 1
            (root / "conda/noarch/b.conda").write_bytes(b"twn")
            (staged / "conda/noarch/b.conda").unlink()
            code, said = check(staged, *WANTED, url=url)
        assert code == 1 and f"bundle: {url}/conda/noarch/b.conda is damaged" in said

    def test_refuses_what_a_url_gives_damaged(self, root: Path, tmp_path: Path) -> None:
        (root / "conda/noarch/b.conda").write_bytes(b"twn")
        with serving(root) as (url, _):
            code, said = check(tmp_path / "staged", *WANTED, url=url)
        assert code == 1
        assert f"bundle: {url}/conda/noarch/b.conda is damaged" in said


def made_bundle(folder: Path) -> Path:
    """A bundle of four small files, of which WANTED are all."""
    files = {"wheels/a b+1.whl": b"one", "conda/noarch/b.conda": b"two", "packages/s/c.deb": b"three"}
    files["packages/s/Packages"] = f"Package: c\nSHA256: {digest(b'three')}\n".encode()
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    index(folder)
    return folder


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


WANTED = (
    f"wheels/a {digest(b'one')}",
    f"conda/noarch/b.conda {'0' * 64} {digest(b'two')}",
    f"packages/s/c.deb {digest(b'three')}",
    "packages/s/Packages =packages/s/Packages",
)


def index(folder: Path) -> None:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != bundle.INDEX]
    hashes = {str(path.relative_to(folder)): digest(path.read_bytes()) for path in paths}
    (folder / bundle.INDEX).write_text(bundle.render(hashes))


def check(folder: Path, *wanted: str, url: str = "") -> tuple[int, str]:
    """Runs the check, with its scratch files beside the bundle rather than in /run."""
    lines = folder.parent / "wanted"
    lines.write_text("".join(f"{line}\n" for line in wanted))
    text = render("bundle/check.sh").replace("/run/bringup", str(folder.parent / "run"))
    words = ["sh", "-euc", text, "sh", str(folder), "all" if wanted == ("all",) else str(lines), url]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def serving(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves a directory; what was asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
