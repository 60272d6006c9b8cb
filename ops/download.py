"""Shell text that downloads a file and checks it before it is put in place."""

import shlex
from collections.abc import Iterable


def script(urls: Iterable[str], sha256: str, target: str, hint: str) -> str:
    """Downloads `target` unless it is there with this sha256; goes on where an earlier, cut download stopped.

    Args:
        urls: where the file is, the first choice first; all have the same bytes.
        sha256: what it must be.
        target: path on the host; its directory is there.
        hint: what the operator can do when no source has it.
    """
    path = shlex.quote(target)
    return f"""
right() {{ echo "{sha256}  $1" | sha256sum --check --status 2>/dev/null; }}
for url in {shlex.join(urls)}; do
    if right {path}; then break; fi
    echo "downloading $url"
    # a server that cannot go on from the middle is asked for the whole file
    fetch() {{ curl --fail --silent --show-error --location --retry 5 --retry-all-errors --retry-delay 2 \\
        --connect-timeout 20 --speed-limit 1000 --speed-time 60 "$@" --output {path}.part "$url"; }}
    right {path}.part || fetch --continue-at - || {{ [ $? = 33 ] && rm -f {path}.part && fetch; }} || continue
    if right {path}.part; then
        mv -f {path}.part {path}
    else
        echo "$url has sha256 $(sha256sum <{path}.part | cut -c 1-64), not the pinned {sha256}"
        rm -f {path}.part
    fi
done
right {path} || {{ echo {shlex.quote(hint)}; exit 1; }}
"""
