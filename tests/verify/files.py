"""Files and directories on a host, compared with what they shall be."""

from ops.files import Directory, File
from plan.probe import Path

# What every host has, whatever its plan.
DIRECTORIES = (
    Directory("/etc/bringup"),
    Directory("/opt/bringup"),
    Directory("/opt/bringup/downloads"),
    Directory("/var/lib/bringup", mode="750", owner="bringup:bringup"),
    Directory("/srv/models", owner="bringup:bringup"),
)


def difference(wanted: File | Directory, seen: Path | None) -> str:
    """In which way it is not as it shall be, in words without any content; empty when it is."""
    if seen is None:
        return f"there is no {wanted.path}"
    if (seen.mode, seen.owner) != (wanted.mode, wanted.owner):
        return f"{wanted.path} is {seen.owner} {seen.mode}, shall be {wanted.owner} {wanted.mode}"
    return f"{wanted.path} has another content than planned" if wanted.differs(seen) else ""
