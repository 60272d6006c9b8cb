"""What roles install of RHEL's family, with all that it needs on a bare system, as dnf itself resolves it.

As `plan.apt_closure` for Debian: `QUESTION` is shell, run on the host, which resolves against an empty system
and leaves nothing behind; `parse` reads the answer.
"""

import re
import shlex

from pydantic import ValidationError

from plan.errors import PlanError
from plan.lock import Package, Packages
from plan.nvidia_plan import DriverPlan

NAMES = (
    *("ca-certificates", "curl", "numactl-libs", "gcc-c++", "openssl", "zstd", "tar"),
    *("nginx", "aria2", "nftables"),
)
# dnf is a Python library; its command says neither hashes nor what an empty system would get.
_PROGRAM = """
import sys, tempfile, dnf

repository, wanted, main, *names = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder, dnf.Base() as base:
    base.conf.read()
    base.conf.substitutions.update_from_etc("/", varsdir=base.conf.varsdir)
    base.conf.cachedir = folder
    base.conf.install_weak_deps = False
    base.read_all_repos()
    if repository:
        # all of its streams at once: the release decides
        base.repos.add_new_repo("bringup-nvidia-asked", base.conf, baseurl=[repository], module_hotfixes=True)
    base.fill_sack(load_system_repo=False)
    release = ""
    if main:
        offered = base.sack.query().available().filter(name=main, version__glob=wanted)
        newest = sorted(offered, key=lambda one: one)[-1:]
        if not newest:
            sys.exit(f"the package sources have no {main} of {wanted}")
        release = newest[0].version
        print("release", release)
    for name in names:
        try:
            # a name with a sign in front is of the driver's own release
            base.install(f"{name[1:]}-{release}" if name[0] == "=" else name)
        except dnf.exceptions.MarkingError:
            print("lacks", name.lstrip("="))
    base.resolve()
    for package in base.transaction.install_set:
        kind, digest = package.returnIdSum()
        print("package", package.remote_location(), package.downloadsize, kind + ":" + digest)
"""


def _question(*words: str) -> str:
    return f"""
set -eu
for python in /usr/libexec/platform-python python3; do
    "$python" -c 'import dnf' 2>/dev/null || continue
    "$python" - {shlex.join(words)} <<'PROGRAM'
{_PROGRAM}
PROGRAM
    exit
done
"""


QUESTION = _question("", "", "", *NAMES)


def driver_question(driver: DriverPlan) -> str:
    """The same question for a driver, at the release of the plan or the newest of its branch."""
    bound = [f"={name}" for name in (*driver.packages, *driver.optional, *driver.exact)]
    beside = ("dkms", *driver.headers, "dnf-command(versionlock)", *driver.beside)
    release = driver.pinned or (None if driver.work.install else driver.version) or f"{driver.branch}.*"
    repository = driver.repository.url if driver.repository else ""
    return _question(repository, release, driver.packages[-1], *bound, *beside)


def parse(text: str, made_by: str = "") -> Packages:
    """The packages of an answer to `QUESTION`, or to `driver_question`.

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
    return Packages(made_by=made_by or f"dnf install {' '.join(names)} on an empty system", files=found)
