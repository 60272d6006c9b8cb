"""Shell text that downloads a file and checks it before it is put in place."""

import shlex
from collections.abc import Iterable

from ops.render import render


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
{render("shell/fetch.sh")}
right() {{ echo "{sha256}  $1" | sha256sum --check --status 2>/dev/null; }}
for url in {shlex.join(urls)}; do
    if right {path}; then break; fi
    echo "downloading $url"
    right {path}.part || fetch "$url" {path}.part || continue
    if right {path}.part; then
        mv -f {path}.part {path}
    else
        echo "$url has sha256 $(sha256sum <{path}.part | cut -c 1-64), not the pinned {sha256}"
        rm -f {path}.part
    fi
done
right {path} || {{ echo {shlex.quote(hint)}; exit 1; }}
"""
