"""ROOT/conda: a small channel with the lock file of its environment. ROOT/installers: the installer."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from pathlib import Path

import rattler
import rattler.index

from tests.lab.hubs import pip, recipe
from tests.lab.hubs.conda import debian, installer, python, stand_in
from tests.lab.hubs.conda.packages import Package, unpack_wheel, write_package, write_wheel

CHANNEL = "lab-forge"
INSTALLER = f"Miniforge3-stand-in-{stand_in.VERSION}-Linux-x86_64.sh"
WHEELS = ("pip==25.3", "setuptools==80.9.0", "wheel==0.45.1")
RATTLER = f"py-rattler=={rattler.__version__}"
ENVIRONMENT = ("python", "pip", "setuptools", "wheel")
CODE = sorted(path for path in Path(__file__).parent.rglob("*") if path.suffix in (".py", ".sh"))


def fetch_python(root: Path, base_image: Path) -> str:
    """ROOT/python: the base image's Python as .deb files; returns its version, "3.11.2"."""
    sources = [base_image / "etc/os-release", *sorted((base_image / "etc/apt").rglob("*.sources"))]
    build = recipe.recipe_hash(Path(debian.__file__), *sources)
    recipe.build_folder(root / "python", build, lambda folder: python.fetch(base_image, folder))
    return (root / "python" / "version").read_text()


def build_channel(root: Path, url: str) -> Path:
    """The channel as hosts find it under `url`; returns the lock file of the environment."""
    fetched = root / "python"
    build = recipe.recipe_hash(*CODE, fetched / recipe.RECIPE_FILE, WHEELS, url)
    recipe.build_folder(root / "conda", build, lambda folder: make_channel(folder, fetched, url))
    (lock,) = (root / "conda").glob("*.explicit.txt")
    return lock


def build_installer(root: Path) -> Path:
    """The installer, made from the channel; returns its path."""
    build = recipe.recipe_hash(root / "conda" / recipe.RECIPE_FILE, RATTLER)
    version = python.minor_version((root / "python" / "version").read_text())
    channel = root / "conda" / CHANNEL
    recipe.build_folder(root / "installers", build, lambda folder: make_installer(folder, channel, version))
    return root / "installers" / INSTALLER


# -- the channel ----------------------------------------------------------------------------------------


def make_channel(folder: Path, fetched: Path, url: str) -> None:
    version = (fetched / "version").read_text()
    channel = folder / CHANNEL
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        write_packages(channel, fetched / "debs", Path(scratch), version)
    asyncio.run(rattler.index.index_fs(channel, write_shards=False, force=True))
    lock = folder / f"python-{python.minor_version(version)}.explicit.txt"
    lock.write_text(lock_text(channel, f"{url}/{CHANNEL}", ENVIRONMENT))


def write_packages(channel: Path, debs: Path, scratch: Path, version: str) -> None:
    (scratch / "wheels").mkdir()
    minor = python.minor_version(version)
    wheels = [pip.download(wheel, scratch / "wheels", minor) for wheel in WHEELS]
    bundled = [wheel for wheel in wheels if wheel.name.startswith(("pip-", "setuptools-"))]
    recipe.progress(f"conda: packaging Python {version}")
    write_package(Package("python", version), python.make_tree(debs, scratch, version, bundled), channel)
    for wheel in wheels:
        write_wheel(wheel, scratch, channel, (f"python >={minor}",))
    write_conda(channel, scratch, minor)


def write_conda(channel: Path, scratch: Path, minor: str) -> None:
    """The stand-in for conda itself as a package. It needs py-rattler, which the installer brings."""
    module = scratch / "conda" / "site-packages" / "conda_stand_in"
    shutil.copytree(Path(stand_in.__file__).parent, module, ignore=shutil.ignore_patterns("__pycache__"))
    package = Package(
        name="conda-stand-in",
        version=stand_in.VERSION,
        depends=(f"python >={minor}",),
        noarch=True,
        entry_points=("conda = conda_stand_in.cli:main",),
    )
    write_package(package, scratch / "conda", channel)


def lock_text(channel: Path, url: str, names: tuple[str, ...]) -> str:
    """An explicit file of these packages, hashes included."""
    lines = ["# platform: linux-64", "@EXPLICIT"]
    for name in names:
        (path,) = channel.glob(f"*/{name}-[0-9]*.tar.bz2")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f"{url}/{path.parent.name}/{path.name}#sha256:{digest}")
    return "\n".join(lines) + "\n"


# -- the installer --------------------------------------------------------------------------------------


def make_installer(folder: Path, channel: Path, python_version: str) -> None:
    """Link the base prefix as on a host, add py-rattler, and pack all of it."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        base = scratch / "prefix-of-the-build"
        asyncio.run(link(channel, base, scratch / "cache"))
        wheel = pip.download(RATTLER, folder, python_version)
        unpack_wheel(wheel, base / f"lib/python{python_version}/site-packages")
        wheel.unlink()
        recipe.progress(f"installers: packing {INSTALLER}")
        installer.write_installer(base, folder / INSTALLER, stand_in.VERSION)


async def link(channel: Path, prefix: Path, cache: Path) -> None:
    source = rattler.Channel(channel.as_uri())
    specs = ["python", "pip", "conda-stand-in"]
    records = await rattler.solve([source], specs, platforms=["linux-64", "noarch"])
    await rattler.install(records, prefix, cache_dir=cache, show_progress=False)
    (prefix / "conda-meta" / "history").write_text("")
