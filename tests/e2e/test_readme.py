"""The README's own commands and examples work, in both languages, from a fresh clone."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from plan import settings
from tests.lab.layout import REPOSITORY

LANGUAGES = ("README.md", "README.zh-CN.md")


def blocks(readme: str, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    text = (REPOSITORY / readme).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(readme: str) -> list[str]:
    """The commands that a reader without GPU hosts can run."""
    lines = "".join(blocks(readme, "sh")).splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and "mine.py" not in line]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a new user has: a clone of what is committed, nothing else."""
    folder = tmp_path_factory.mktemp("clone") / "bringup"
    subprocess.run(["git", "clone", "-q", REPOSITORY, folder], check=True)
    return folder


def test_both_languages_show_the_same_commands_and_the_same_inventory() -> None:
    english, chinese = LANGUAGES
    assert commands(english) == commands(chinese)
    assert blocks(english, "sh") and blocks(english, "python")
    strip = [re.sub(r"#.*", "", block) for block in blocks(english, "python")]
    assert strip == [re.sub(r"#.*", "", block) for block in blocks(chinese, "python")]


@pytest.mark.lab
@pytest.mark.timeout(1500)
def test_every_command_of_the_readme_works_in_a_fresh_clone(fleet: None, clone: Path) -> None:
    for command in commands("README.md"):
        if command.startswith(("git clone", "cd ", "make test", "make lab-down")):
            continue
        done = subprocess.run(command, shell=True, cwd=clone, capture_output=True, text=True, check=False)  # noqa: S602
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        if command == "make demo":
            assert done.stdout.count("answer:") == 2
            page = re.search(r"on one page: (\S+/report\.html)$", done.stdout, re.MULTILINE)
            assert page and Path(page[1]).is_file()


def test_the_inventory_of_the_readme_is_accepted(tmp_path: Path) -> None:
    inventory, group_data = blocks("README.md", "python")[:2]
    (tmp_path / "group_data").mkdir()
    (tmp_path / "mine.py").write_text(inventory)
    (tmp_path / "group_data/mine.py").write_text(group_data)
    done = subprocess.run(
        [REPOSITORY / ".venv/bin/pyinfra", "--json", tmp_path / "mine.py", "debug-inventory"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    hosts = json.loads(done.stdout)
    assert len(hosts) > 1
    for host in hosts:
        assert settings.read([host["data"]]).serve
