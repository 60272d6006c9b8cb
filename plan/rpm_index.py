"""dnf's index of a directory of packages; the same text for the same packages."""

import functools
import hashlib
import importlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from plan.errors import PlanError

_COMMON = "http://linux.duke.edu/metadata/common"
_RPM = "http://linux.duke.edu/metadata/rpm"
_FILELISTS = "http://linux.duke.edu/metadata/filelists"
_REPOSITORY = "http://linux.duke.edu/metadata/repo"


def texts(folder: Path, rpms: Mapping[str, str]) -> dict[str, str]:
    """Path below the directory -> text of every file of its index.

    Args:
        folder: the directory.
        rpms: file name -> sha256.

    Raises:
        PlanError: a file is no RPM, or this system has nothing that reads one.
    """
    packages = [_read(folder, name) for name in sorted(rpms)]
    number = f'packages="{len(packages)}"'
    primary = "".join(primary for primary, _ in packages)
    files = "".join(files for _, files in packages)
    parts = {
        "primary": f'<metadata xmlns="{_COMMON}" xmlns:rpm="{_RPM}" {number}>\n{primary}</metadata>\n',
        "filelists": f'<filelists xmlns="{_FILELISTS}" {number}>\n{files}</filelists>\n',
    }
    written = {f"repodata/{name}.xml": f"{_HEAD}{text}" for name, text in parts.items()}
    return written | {"repodata/repomd.xml": _repository(written)}


_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def _read(folder: Path, name: str) -> tuple[str, str]:
    """A package's entries in the lists of packages and of files."""
    createrepo = _library()
    try:
        package = createrepo.package_from_rpm(str(folder / name), location_href=name, changelog_limit=0)
    except (OSError, createrepo.CreaterepoCError) as error:
        raise PlanError([f"bundle: {folder / name}: is no RPM ({error}). Make the bundle anew."]) from None
    # when it was put there says nothing of what it is
    package.time_file = 0
    return createrepo.xml_dump_primary(package), createrepo.xml_dump_filelists(package)


@functools.cache
def _library() -> Any:
    """createrepo_c, which complains on the error output where rpm itself is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        if not Path("/usr/lib/rpm/rpmrc").exists():
            (Path(folder) / "rpmrc").touch()
            os.environ.setdefault("RPM_CONFIGDIR", folder)
        try:
            return importlib.import_module("createrepo_c")
        except ImportError:
            raise PlanError(["bundle: RPM packages are indexed on Linux only. Make it there."]) from None
        finally:
            if os.environ.get("RPM_CONFIGDIR") == folder:
                del os.environ["RPM_CONFIGDIR"]


def _repository(written: Mapping[str, str]) -> str:
    """The index of the index."""
    lines = [f'{_HEAD}<repomd xmlns="{_REPOSITORY}">', "  <revision>0</revision>"]
    for path, text in written.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        kind = Path(path).stem
        lines += [
            f"  <data type={quoteattr(kind)}>",
            f'    <checksum type="sha256">{digest}</checksum>',
            f"    <location href={quoteattr(path)}/>",
            "    <timestamp>0</timestamp>",
            f"    <size>{len(text.encode())}</size>",
            "  </data>",
        ]
    return "\n".join([*lines, "</repomd>", ""])
