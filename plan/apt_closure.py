"""The distribution's packages that roles install, with all that they need on a bare Debian or Ubuntu.

The host's own package manager resolves them against an empty system, so the answer is the same whatever is
installed there. `QUESTION` is shell, run on the host; it writes nothing but a directory under /tmp, which it
removes. `parse` reads the answer.
"""

import re
from urllib.parse import unquote

from pydantic import ValidationError

from plan.errors import PlanError
from plan.lock import Package, Packages

# What roles ask of apt: the ground, compilers, the front, the exchange of models, what unpacks Ollama.
NAMES = (
    *("ca-certificates", "curl", "libnuma1", "gcc", "g++", "libc6-dev", "openssl", "zstd"),
    *("nginx", "aria2", "nftables"),
)
QUESTION = f"""
set -eu
command -v apt-get >/dev/null || exit 0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/lists/partial" "$folder/archives/partial"
chown -R _apt "$folder" 2>/dev/null || true
chmod 755 "$folder"
set -- -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder" -o Dir::State::status=/dev/null
apt-get -qq "$@" update >/dev/null
apt-get -qq "$@" --assume-yes --no-install-recommends --print-uris install {" ".join(NAMES)}
echo
apt-get -qq "$@" --assume-yes --no-install-recommends -s install {" ".join(NAMES)} |
    sed -n 's/^Inst \\([^ ]*\\) (\\([^ ]*\\).*/\\1=\\2/p' |
    xargs apt-cache "$@" show |
    grep -E '^(Filename|Size|SHA256):'
"""


def parse(text: str, made_by: str = f"apt-get install {' '.join(NAMES)} on a bare system") -> Packages:
    """The packages of an answer to `QUESTION`, or of one that was made like it.

    Raises:
        PlanError: it is no such answer, or lacks the hash of a package.
    """
    urls = dict(_urls(text))
    hashes: dict[str, tuple[int, str]] = {}
    for stanza in re.split(r"(?m)^(?=Filename: )", text)[1:]:
        fields = dict(re.findall(r"(?m)^(Filename|Size|SHA256): (\S+)$", stanza))
        hashes[fields["Filename"].rpartition("/")[2]] = (int(fields["Size"]), fields["SHA256"])
    try:
        found = {
            name: Package(url=url, size=hashes[name][0], sha256=hashes[name][1]) for name, url in urls.items()
        }
    except (KeyError, ValidationError) as error:
        raise PlanError(
            [f"packages: apt says no hash of {error}. Look at the host's package sources."]
        ) from None
    if not found:
        raise PlanError(["packages: apt knows none. Look at the host's package sources."])
    return Packages(made_by=made_by, files=found)


def _urls(text: str) -> list[tuple[str, str]]:
    """The file's name in the archive, and its whole address, of every package to install."""
    found = re.findall(r"(?m)^'(\S+)' \S+ \d+ \S*$", text)
    return [(unquote(url.rpartition("/")[2]), url) for url in found]
