"""The mounted file systems of a host, from the probe's block of that name."""

from collections.abc import Iterable, Mapping


def parse(lines: Iterable[str]) -> Mapping[str, float | None]:
    """Mount point -> free GiB for root; None where asking could hang: `POINT FREE_KIB`, `POINT -`."""
    fields = (line.rsplit(" ", 1) for line in lines)
    return {point: None if free == "-" else int(free) / 2**20 for point, free in fields}


def mount_of(path: str, mounts: Mapping[str, float | None]) -> str | None:
    """The mount point that a path lies on; None when nothing is known of mounts."""
    under = [point for point in mounts if point == "/" or f"{path}/".startswith(f"{point}/")]
    return max(under, key=len, default=None)
