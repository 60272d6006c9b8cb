"""apt's sources at a mirror of the settings, beside the host's own, which stay as they are."""

from plan.errors import PlanError
from plan.probe import Probe

SOURCE_LIST = "/etc/bringup/apt.list"
# further lists of ours beside it
PARTS = "/etc/bringup/apt.d"
DRIVER_LIST = f"{PARTS}/bundle.list"
LISTS = "/var/lib/bringup-apt"
COMPONENTS = {"debian": "main", "ubuntu": "main universe"}
# where the distributions keep their own packages of NVIDIA's driver
DRIVER_COMPONENTS = {"debian": "contrib non-free non-free-firmware", "ubuntu": "restricted multiverse"}


def options(parts: str = "/dev/null") -> tuple[str, ...]:
    """apt-get options that make it read our source list alone, with indexes of its own.

    `parts`: a directory of further lists of ours.
    """
    return (
        "-o",
        f"Dir::Etc::SourceList={SOURCE_LIST}",
        "-o",
        f"Dir::Etc::SourceParts={parts}",
        "-o",
        f"Dir::State::Lists={LISTS}",
    )


def source_list(mirror: str, probe: Probe, with_driver: bool = False) -> str:
    """The text of a source list for this host at a mirror, with the distribution's driver if asked for.

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
    components = COMPONENTS[system] + (f" {DRIVER_COMPONENTS[system]}" if with_driver else "")
    signed = f"[signed-by=/usr/share/keyrings/{system}-archive-keyring.gpg]"
    lines = [f"deb {signed} {archive} {suite} {components}" for archive, suite in archives]
    return "\n".join(["# Written by bringup from sources.apt; edits are overwritten.", *lines, ""])
