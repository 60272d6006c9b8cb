"""dnf's repositories of ours, beside the host's own, which stay as they are."""

REPOSITORIES = "/etc/bringup/yum.repos.d"
REPOSITORY_FILE = f"{REPOSITORIES}/bundle.repo"


def options() -> tuple[str, ...]:
    """dnf options that make it read our repositories alone."""
    return (f"--setopt=reposdir={REPOSITORIES}",)


def repository(directories: dict[str, str]) -> str:
    """The text of a repository file; `directories`: name -> where its packages and their index are.

    Signatures are not asked for: every file was compared with the lock before. Of RHEL's modules only the
    packages are there, not what says which stream they are of.
    """
    stanzas = [
        f"[bringup-{name}]\nname={name} of sources.bundle\nbaseurl=file://{directory}\n"
        "enabled=1\ngpgcheck=0\nrepo_gpgcheck=0\nmodule_hotfixes=1\nmetadata_expire=1\n"
        # what this deploy does not take need not have been brought
        "skip_if_unavailable=1\n"
        for name, directory in directories.items()
    ]
    return "\n".join(["# Written by bringup from sources.bundle; edits are overwritten.", *stanzas])
