"""Files are put in place by the very shell command that a host gets, run here in a scratch directory."""

import grp
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyinfra.context import ctx_host

from ops import files
from plan.probe import Path as SeenPath

USER, GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
OWNER = f"{USER}:{GROUP}"
TEXT = "键=\"a\" 'b' $(id) `id` \\n %s\n\n"


@pytest.fixture(autouse=True)
def of_a_host() -> Iterator[None]:
    """pyinfra knows which host an operation is for."""
    with ctx_host.use(SimpleNamespace(name="host", noop=lambda _: None)):
        yield


def put(*wanted: files.File, **seen: SeenPath) -> subprocess.CompletedProcess[str]:
    """Runs the command that writes these files, with its standard input."""
    (command,) = files.write._inner(files=wanted, seen=seen)
    stdin = "".join(f"{line}\n" for line in command.connector_arguments["_stdin"])
    words = ["sh", "-c", command.get_raw_value()]
    # as for a service user, whose shell is none; and on the smallest system, which has no tar
    variables = os.environ | {"SHELL": "/usr/sbin/nologin"}
    return subprocess.run(words, input=stdin, env=variables, capture_output=True, text=True, check=False)


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))[2:]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command unpacks; nothing may stay in it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_every_byte_mode_and_owner_arrives_and_nothing_is_left_behind(tmp_path: Path, scratch: Path) -> None:
    one, two = tmp_path / "new" / "folder" / "it's a file", tmp_path / "key"
    three = tmp_path / "empty"
    done = put(
        files.File(str(one), TEXT, mode="755", owner=OWNER),
        files.File(str(two), "secret\n", mode="600", owner=OWNER),
        files.File(str(three), "", owner=OWNER),
    )
    assert three.read_bytes() == b""
    assert (done.returncode, done.stderr) == (0, "")
    assert (one.read_text(), mode(one), one.owner()) == (TEXT, "755", USER)
    assert (two.read_text(), mode(two)) == ("secret\n", "600")
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "key", "new", "scratch"]


def test_a_file_is_replaced_by_a_rename_so_that_its_readers_keep_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "unit"
    path.write_text("old")
    with path.open() as reader:
        assert put(files.File(str(path), "new", owner=OWNER)).returncode == 0
        assert (reader.read(), path.read_text()) == ("old", "new")


def test_a_link_is_replaced_and_what_it_points_to_is_not_written(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("kept")
    link.symlink_to(target)
    put(files.File(str(link), "new", owner=OWNER))
    assert (target.read_text(), link.read_text(), link.is_symlink()) == ("kept", "new", False)


def test_a_directory_in_the_way_fails_and_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    assert put(files.File(str(tmp_path / "unit"), "new", owner=OWNER)).returncode != 0
    assert list((tmp_path / "unit").iterdir()) == []


def test_a_transfer_that_was_cut_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "unit"
    path.write_text("old")
    (command,) = files.write._inner(files=[files.File(str(path), "new" * 9999, owner=OWNER)], seen={})
    (stdin,) = command.connector_arguments["_stdin"]
    cut = subprocess.run(
        ["sh", "-c", command.get_raw_value()],
        input=stdin[: len(stdin) // 2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert cut.returncode != 0
    assert path.read_text() == "old"


def test_a_secret_is_readable_by_nobody_else_while_it_is_unpacked(tmp_path: Path, scratch: Path) -> None:
    (command,) = files.write._inner(
        files=[files.File(str(tmp_path / "key"), "secret", mode="600", owner=OWNER)], seen={}
    )
    (stdin,) = command.connector_arguments["_stdin"]
    # the shell stops between unpacking and installing
    paused = command.get_raw_value().replace("umask 022", "ls -lR $TMPDIR && exit 9", 1)
    done = subprocess.run(["sh", "-c", paused], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 9
    folders = [line.split() for line in done.stdout.splitlines() if line.startswith("d")]
    assert [folder[0].rstrip(".+") for folder in folders] == ["drwx------"]


class TestWhatDiffers:
    wanted = files.File("/etc/x", "text", mode="600")
    same = SeenPath(
        "600", "root:root", "f", "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"
    )

    def test_is_nothing_when_content_mode_owner_and_kind_are_as_planned(self) -> None:
        assert not self.wanted.differs(self.same)

    @pytest.mark.parametrize(
        "seen",
        [
            None,
            SeenPath("644", "root:root", "f", same.sha256),
            SeenPath("600", "bringup:bringup", "f", same.sha256),
            SeenPath("600", "root:root", "f", "0" * 64),
            SeenPath("777", "root:root", "l", None),
        ],
    )
    def test_is_each_of_these(self, seen: SeenPath | None) -> None:
        assert self.wanted.differs(seen)

    def test_alone_is_sent(self) -> None:
        (command,) = files.write._inner(
            files=[self.wanted, files.File("/etc/y", "new")], seen={"/etc/x": self.same}
        )
        assert "/etc/y" in command.get_raw_value()
        assert "/etc/x" not in command.get_raw_value()

    def test_is_a_directory_of_another_mode_or_owner(self) -> None:
        wanted = files.Directory("/srv/models", owner="bringup:bringup")
        assert not wanted.differs(SeenPath("755", "bringup:bringup", "d"))
        assert wanted.differs(SeenPath("755", "root:root", "d"))
        assert wanted.differs(SeenPath("755", "bringup:bringup", "f"))


def test_directories_are_made_and_mended(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    wanted = [files.Directory(str(tmp_path / name), "750", OWNER) for name in ("there", "a new one")]
    (command,) = files.directories._inner(wanted=wanted, seen={})
    subprocess.run(["sh", "-c", command], check=True)
    assert [mode(tmp_path / name) for name in ("there", "a new one")] == ["750", "750"]


def test_a_files_content_is_in_no_representation_of_it() -> None:
    assert "secret" not in repr(files.File("/etc/x", "secret"))
