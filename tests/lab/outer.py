"""What a lab host takes over from this computer, so that it reaches the same registries: package sources
with their keys, apt's and pip's configuration, proxies, certificates and name servers. Whatever they are:
no registry's name is written here.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.layout import Lab, LabError
from tests.lab.shell import call

_COMPONENTS = {
    "debian": "main contrib non-free non-free-firmware",
    "ubuntu": "main restricted universe multiverse",
}
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


@dataclass(frozen=True)
class Distribution:
    """This computer's, and so the hosts'."""

    name: str
    """debian or ubuntu."""
    suite: str
    """Its code name, such as bookworm."""


@dataclass(frozen=True)
class PackageSource:
    """One stanza of apt's deb822 format."""

    fields: dict[str, str] = field(default_factory=dict)

    def words(self, name: str) -> list[str]:
        return self.fields.get(name, "").split()


def distribution() -> Distribution:
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    name, suite = (shlex.split(release.get(key, ""))[:1] for key in ("ID", "VERSION_CODENAME"))
    if not name or name[0] not in _COMPONENTS or not suite:
        raise LabError(
            f"This computer runs {' '.join(name) or 'an unknown system'}: the lab's hosts are made from "
            "its own packages, and only Debian and Ubuntu are known."
        )
    return Distribution(name[0], suite[0])


def package_sources(of: Distribution, etc_apt: Path = Path("/etc/apt")) -> list[PackageSource]:
    """The sources in ETC_APT that provide the distribution itself, with all of its components.

    Other vendors' sources may use the same suite names, so those signed by the distribution's own keyring
    are preferred; a private mirror that signs with its own key is taken where there are no others.
    """
    pattern = rf"{re.escape(of.suite)}(-(updates|security|proposed-updates))?"
    found = []
    for source in _configured_sources(etc_apt):
        suites = [suite for suite in source.words("Suites") if re.fullmatch(pattern, suite)]
        if "deb" in source.words("Types") and suites and "main" in source.words("Components"):
            new = {"Types": "deb", "Suites": " ".join(suites), "Components": _COMPONENTS[of.name]}
            found.append(PackageSource(source.fields | new))
    own = [source for source in found if _is_signed_by_distribution(source)]
    if not found:
        raise LabError(f"No package source in {etc_apt} provides {of.suite} main: the base image needs one.")
    return own or found


def render_sources(sources: list[PackageSource]) -> str:
    return "\n".join(
        "".join(f"{name}: {value}\n" for name, value in source.fields.items()) for source in sources
    )


def keyrings(sources: list[PackageSource]) -> list[Path]:
    """The files that hold the keys of SOURCES; for those that name none, all that apt trusts."""
    named = [Path(path) for source in sources for path in source.words("Signed-By") if path.startswith("/")]
    if all(source.fields.get("Signed-By") for source in sources):
        return sorted(set(named))
    trusted = Path("/etc/apt/trusted.gpg.d")
    return sorted({*named, *trusted.glob("*.gpg"), *trusted.glob("*.asc")})


def apt_configuration() -> str:
    """How this computer's apt fetches (proxies, checks, retries); not its hooks, which need its programs."""
    unwanted = ("Acquire::IndexTargets", "Acquire::Changelogs", "Acquire::cdrom")
    lines = call("apt-config", "dump", "Acquire").splitlines()
    return "".join(
        f"{line}\n"
        for line in lines
        if not line.startswith(unwanted) and not re.search(r"proxy-?auto-?detect", line, re.IGNORECASE)
    )


def apt_credentials() -> list[Path]:
    return [
        path
        for path in (Path("/etc/apt/auth.conf"), *Path("/etc/apt/auth.conf.d").glob("*.conf"))
        if path.is_file()
    ]


def pip_configuration() -> str:
    """Pip's settings, less the folders of this computer, which no host can see."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    settings: dict[str, str] = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else []:
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        locations = ast.literal_eval(value).split()
        kept = [part for part in locations if not part.startswith(("/", "file:")) or part == _BUNDLE]
        if kept and section in ("global", ":env:"):  # the environment comes last, and wins
            settings[key] = "\n    ".join(kept)
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in sorted(settings.items()))


def certificates() -> list[Path]:
    return sorted(_CERTIFICATES.glob("*.crt"))


def environment(lab: Lab) -> str:
    """/etc/environment of a host: certificates for programs that bring their own, and proxies."""
    settings = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), _BUNDLE)
    if not certificates():
        settings = {}
    proxies = {
        name: value for name in _PROXIES if (value := os.environ.get(name) or os.environ.get(name.upper()))
    }
    if proxies:
        inside = ["localhost", "127.0.0.1", lab.gateway, *(host.address for host in lab.possible_hosts())]
        proxies["no_proxy"] = ",".join([*filter(None, [proxies.get("no_proxy")]), *inside])
    for name, value in proxies.items():
        settings |= {name: value, name.upper(): value}
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def name_servers() -> str:
    """/etc/resolv.conf for a host: where this computer asks its own resolver, the servers behind that."""
    text = Path("/etc/resolv.conf").read_text()
    behind = Path("/run/systemd/resolve/resolv.conf")
    if re.search(r"^nameserver\s+127\.", text, re.MULTILINE) and behind.exists():
        return behind.read_text()
    return text


def _configured_sources(etc_apt: Path) -> list[PackageSource]:
    sources = []
    for path in [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            sources += [source for line in path.read_text().splitlines() if (source := _parse_line(line))]
        elif path.suffix == ".sources":
            sources += _parse_stanzas(path.read_text())
    return sources


def _parse_line(line: str) -> PackageSource | None:
    """`deb [option=value ...] URI SUITE COMPONENT...`, as sources.list(5) has it."""
    match = re.fullmatch(
        r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>[^#]+).*",
        line.strip(),
    )
    if not match:
        return None
    fields = {
        "Types": "deb",
        "URIs": match["uri"],
        "Suites": match["suite"],
        "Components": match["components"].strip(),
    }
    for option in (match["options"] or "").split():
        name, _, value = option.partition("=")
        fields[name.title()] = value.replace(",", " ")
    return PackageSource(fields)


def _parse_stanzas(text: str) -> list[PackageSource]:
    """apt's deb822 format: a comment may stand anywhere, a folded line continues the field before it."""
    sources = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace() and name:
                fields[name] += f"\n{line}"
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields and fields.get("Enabled", "yes").lower() not in ("no", "false", "0"):
            sources.append(PackageSource(fields))
    return sources


def _is_signed_by_distribution(source: PackageSource) -> bool:
    signed_by = source.fields.get("Signed-By", "")
    return not signed_by or re.search(r"/(debian|ubuntu)-archive-[^/]*$", signed_by) is not None
