"""The shape of the repository: which way imports go, what every role has, what product code may not know."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir() and path.name[0] not in "_.")
PRODUCT = ("plan", "ops", "roles", "templates", "deploy.py", "config.py")
# Product code stands on no other ground than its hosts. "label", "available" and the like are fine.
UNKNOWN_WORDS = re.compile(r"\b(lab|labs|stand-?ins?|simulat\w*|faked?|mock\w*)\b", re.IGNORECASE)
MOST_LINES = 400

# Package -> what it may not import.
FORBIDDEN = {
    "plan": {"pyinfra", "gevent", "paramiko", "ops", "roles", "deploy", "tests", "inventories"},
    "ops": {"roles", "deploy", "tests", "inventories"},
    "roles": {"deploy", "tests", "inventories"},
}


def files(*places: str, suffix: str = "") -> list[Path]:
    """The files of folders, or the files themselves."""
    all_files: list[Path] = []
    for place in places:
        found = [ROOT / place] if (ROOT / place).is_file() else sorted((ROOT / place).rglob(f"*{suffix}"))
        all_files += (path for path in found if path.is_file() and "__pycache__" not in path.parts)
    return all_files


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or later."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name of what is imported"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def by_path(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_roles_to_judge() -> None:
    assert {"conda", "host", "models", "torch", "vllm"} <= set(ROLES)


@pytest.mark.parametrize("path", files("plan", "ops", "roles", suffix=".py"), ids=by_path)
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    found = {module.split(".")[0] for module in imports(path)}
    assert not found & FORBIDDEN[package]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_imports_no_other_role(role: str) -> None:
    for path in files(f"roles/{role}", suffix=".py"):
        others = {module for module in imports(path) if re.match(rf"roles\.(?!{role}(\.|$))", module)}
        assert not others, by_path(path)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_the_files_that_every_role_has(role: str) -> None:
    names = {path.name for path in (ROOT / "roles" / role).iterdir()}
    assert {"__init__.py", "deploy.py"} <= names


@pytest.mark.parametrize("path", files(*PRODUCT), ids=by_path)
def test_product_code_does_not_know_what_its_hosts_are_made_of(path: Path) -> None:
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNKNOWN_WORDS.search(line)
    ]
    assert not found


@pytest.mark.parametrize("path", files("plan", "ops", "roles", "deploy.py", suffix=".py"), ids=by_path)
def test_a_module_is_short_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_only_deploy_py_brings_roles_together() -> None:
    met = {module.split(".")[1] for module in imports(ROOT / "deploy.py") if module.startswith("roles.")}
    assert set(ROLES) <= met


def test_the_settings_page_is_current() -> None:
    from plan import settings_docs

    assert (ROOT / "docs" / "settings.md").read_text() == settings_docs.text(), "run `make docs`"
