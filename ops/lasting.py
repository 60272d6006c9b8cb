"""Shell text for installations that outlast a host going down in the middle.

A file system may then have the names of files whose bytes were never written. So work says in its directories
that it is going on and in which boot; where that was another one, nothing of theirs is believed.
"""

import shlex
from collections.abc import Iterable

from plan.probe import AT_WORK

BOOT = "/proc/sys/kernel/random/boot_id"


def script(work: str, prefix: str, caches: Iterable[str] = ()) -> str:
    """Work on a prefix, which the probe does not count if it was cut off.

    Args:
        work: shell text, under `set -e`.
        prefix: a directory that is there.
        caches: directories that the work keeps for later; one that was cut off is emptied first.
    """
    kept = list(caches)
    words = shlex.join(kept)
    begin = f"""begin() {{ mkdir -p "$1"; cat {BOOT} >"$1/{AT_WORK}"; sync "$1/{AT_WORK}"; }}
end() {{ sync -f "$1"; rm -f "$1/{AT_WORK}"; }}
"""
    clean = f"""for cache in {words}; do
    mark=$cache/{AT_WORK}
    if [ -f "$mark" ] && [ "$(cat "$mark")" != "$(cat {BOOT})" ]; then rm -rf "$cache"; fi
    begin "$cache"
done
"""
    clear = f'for cache in {words}; do end "$cache"; done\n'
    place = shlex.quote(prefix)
    return (
        f"{begin}{clean if kept else ''}begin {place}\n{work.strip()}\n{clear if kept else ''}end {place}\n"
    )
