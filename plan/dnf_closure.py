"""What roles install of RHEL's family, with all that it needs on a bare system, as dnf itself resolves it.

As `plan.apt_closure` for Debian: `QUESTION` is shell, run on the host, which resolves against an empty system
and leaves nothing behind; `parse` reads the answer.
"""

import re

from pydantic import ValidationError

from plan.errors import PlanError
from plan.lock import Package, Packages

NAMES = (
    *("ca-certificates", "curl", "numactl-libs", "gcc-c++", "openssl", "zstd"),
    *("nginx", "aria2", "nftables"),
)
# dnf is a Python library; its command says neither hashes nor what an empty system would get.
_PROGRAM = """
import sys, tempfile, dnf

with tempfile.TemporaryDirectory() as folder, dnf.Base() as base:
    base.conf.read()
    base.conf.substitutions.update_from_etc("/", varsdir=base.conf.varsdir)
    base.conf.cachedir = folder
    base.conf.install_weak_deps = False
    base.read_all_repos()
    base.fill_sack(load_system_repo=False)
    for name in sys.argv[1:]:
        try:
            base.install(name)
        except dnf.exceptions.MarkingError:
            print("lacks", name)
    base.resolve()
    for package in base.transaction.install_set:
        kind, digest = package.returnIdSum()
        print("package", package.remote_location(), package.downloadsize, kind + ":" + digest)
"""
QUESTION = f"""
set -eu
for python in /usr/libexec/platform-python python3; do
    "$python" -c 'import dnf' 2>/dev/null || continue
    "$python" - {" ".join(NAMES)} <<'PROGRAM'
{_PROGRAM}
PROGRAM
    exit
done
"""


def parse(text: str) -> Packages:
    """The packages of an answer to `QUESTION`.

    Raises:
        PlanError: it is no such answer, or lacks the sha256 of a package.
    """
    lacking = set(re.findall(r"(?m)^lacks (\S+)$", text))
    names = [name for name in NAMES if name not in lacking]
    found = {}
    for url, size, kind, digest in re.findall(r"(?m)^package (\S+) (\d+) (\w+):([0-9a-f]+)$", text):
        file = url.rpartition("/")[2]
        try:
            found[file] = Package(url=url, size=int(size), sha256=digest if kind == "sha256" else "")
        except ValidationError:
            raise PlanError([f"packages: dnf says no sha256 of {file}. Use another mirror."]) from None
    if not found:
        raise PlanError(["packages: dnf knows none. Look at the host's package sources."])
    return Packages(made_by=f"dnf install {' '.join(names)} on an empty system", files=found)
