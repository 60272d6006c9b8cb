"""apt's sources at a mirror of the settings, beside the host's own, which stay as they are."""

from plan.errors import PlanError
from plan.probe import Probe

SOURCE_LIST = "/etc/bringup/apt.list"
LISTS = "/var/lib/bringup-apt"
COMPONENTS = {"debian": "main", "ubuntu": "main universe"}


def options() -> tuple[str, ...]:
    """apt-get options that make it read our source list alone, with indexes of its own."""
    return (
        "-o",
        f"Dir::Etc::SourceList={SOURCE_LIST}",
        "-o",
        "Dir::Etc::SourceParts=/dev/null",
        "-o",
        f"Dir::State::Lists={LISTS}",
    )


def source_list(mirror: str, probe: Probe) -> str:
    """The text of a source list for this host at a mirror.

    Mirrors name the archives alike: `/debian` and `/debian-security`, `/ubuntu` or, for other CPUs than
    x86_64, `/ubuntu-ports`. The archives' own keys sign them there as well.

    Raises:
        PlanError: the distribution has no such archive.
    """
    system, codename = probe.os_id, probe.os_codename
    if system not in COMPONENTS or not codename:
        raise PlanError([f"sources.apt: {probe.os_name} is no Debian or Ubuntu. Leave it out for this host."])
    base = mirror.rstrip("/")
    if system == "debian":
        archives = [
            (f"{base}/debian", codename),
            (f"{base}/debian", f"{codename}-updates"),
            (f"{base}/debian-security", f"{codename}-security"),
        ]
    else:
        archive = f"{base}/{'ubuntu' if probe.architecture == 'x86_64' else 'ubuntu-ports'}"
        archives = [(archive, f"{codename}{pocket}") for pocket in ("", "-updates", "-security")]
    signed = f"[signed-by=/usr/share/keyrings/{system}-archive-keyring.gpg]"
    lines = [f"deb {signed} {archive} {suite} {COMPONENTS[system]}" for archive, suite in archives]
    return "\n".join(["# Written by bringup from sources.apt; edits are overwritten.", *lines, ""])
