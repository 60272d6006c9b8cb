"""A folder in the place of a host, where the program that installs the driver runs for the tests.

Its package managers write down what they are asked. What they answer is recorded (dnf/README.md), or follows
apt 2.6.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from ops.render import render
from plan import settings
from plan.decide import plan_host
from plan.nvidia_words import plan_text
from plan.probe import Probe

# the places of a host that the program touches
PLACES = (
    "/etc/",
    "/run/",
    "/usr/share/keyrings",
    "/boot/",
    "/lib/modules",
    "/var/lib/dkms",
    "/sys/",
    "/proc/",
    "/dev/kmsg",
)
KEY = "610C7B14E068A878070DA4E99CD0A493D42D0685"

PROGRAMS = {
    "rpm": """case "$*" in
        *gpg-pubkey*) exit 1 ;;
        -e*) for word; do sed -i "/^$word /d" installed; done ;;
        -qa*) cut -d ' ' -f 1 installed ;;
        -q*) for name; do :; done
            grep "^$name " installed | cut -d ' ' -f 2 | grep . && exit
            echo "package $name is not installed"; exit 1 ;;
        esac""",
    "dnf": """case "$*" in
        *"repoquery --available"*) cat offers-dkms ;;
        *"repoquery --showduplicates"*) cat versions ;;
        *"module enable"*) ! cat no-stream 2>/dev/null ;;
        *" install "*)
            if cat dnf-refuses 2>/dev/null; then exit 1; fi
            for word; do
                case $word in
                *nvidia*-[0-9][0-9][0-9].*)
                    name=${word%%-[0-9]*}; release=${word#"$name"-}
                    # one flavour of the modules replaces the other
                    case $name in kmod-*) sed -i '/^kmod-nvidia-.*-dkms /d' installed ;; esac
                    sed -i "/^$name /d" installed; echo "$name $release" >>installed ;;
                esac
            done ;;
        esac""",
    "dpkg-query": """case "$*" in
        *Version*) for name; do :; done; sed -n "s/^$name /ii  /p" installed ;;
        *) sed 's/^/ii  /; s/ [^ ]*$//' installed ;;
        esac""",
    "apt-get": """case "$*" in
        *--dry-run*)
            if [ -s unresolved ]; then cat unresolved; exit 100; fi
            echo 'Inst nvidia-kernel-open-dkms (595.71.05-1 NVIDIA:CUDA [amd64])' ;;
        *" install "*)
            for word; do
                case $word in
                *nvidia*=*) echo "$word" | tr '=' ' ' >>new ;;
                nvidia-*-) sed -i "/^${word%-} /d" installed ;;
                nvidia-*|libnvidia-*) echo "$word 595.71.05-1" >>new ;;
                esac
            done
            if grep -qsF "$(cat refuses 2>/dev/null || echo none)" new; then
                rm new; echo "E: Sub-process /usr/bin/dpkg returned an error code (1)"; exit 100
            fi
            while read -r name release; do
                sed -i "/^$name /d" installed; echo "$name $release" >>installed
            done <new
            rm new ;;
        esac""",
    "apt-cache": """case "$*" in
        *madison*) for name; do :; done; grep "^$name " madison ;;
        *show*) exit 0 ;;
        esac""",
    "nvidia-smi": """case "$*" in
        -L) if [ -e shows-none ]; then echo 'Failed to initialize NVML' >&2; exit 18; fi
            echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)' ;;
        *--gpu-reset*) cat refuses-reset 2>/dev/null && exit 15; echo 'was successfully reset.' ;;
        *query-gpu=pci.bus_id*) echo 00000000:3B:00.0 ;;
        *query-gpu=mig.mode.current*) cat mig 2>/dev/null || echo Disabled ;;
        *-q*) cat smi 2>/dev/null || { echo 'No devices were found'; exit 6; } ;;
        esac""",
    "dkms": "touch built",
    "modinfo": "[ ! -e built ] || sed -n 's/^.*dkms //p' installed | grep -oE '[0-9]{3}[.0-9]+' | head -n 1",
    "curl": """while [ "$1" != --output ]; do shift; done; echo key >"$2" """,
    "gpg": "cat fingerprint",
    "sha256sum": "[ ! -e wrong-hash ]",
    "dpkg-deb": "true",
    "tar": "echo key",
    "modprobe": """case "$*" in
        '-r nvidia') [ "$(ls sys/module/nvidia/holders 2>/dev/null)" ] || rm -rf sys/module/nvidia ;;
        nvidia)
            release=$(sed -n 's/^.*dkms //p' installed | grep -oE '[0-9]{3}[.0-9]+' | head -n 1)
            if [ "$release" = "$(cat does-not-load 2>/dev/null)" ]; then
                echo "modprobe: ERROR: could not insert 'nvidia': No such device" >&2; exit 1
            fi
            mkdir -p sys/module/nvidia; echo "$release" >sys/module/nvidia/version ;;
        esac""",
    "systemctl": """case "$*" in is-active*vllm*) echo active ;; esac""",
    **dict.fromkeys(("depmod", "apt-mark", "dpkg", "journalctl"), "true"),
}


def dnf_said(name: str) -> str:
    """A recorded output of dnf."""
    return (Path(__file__).parent / "dnf" / f"{name}.txt").read_text()


@dataclass
class Sandbox:
    """A host without a driver, or with the packages that are given."""

    folder: Path
    installed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.write("installed", "".join(f"{name} {version}\n" for name, version in self.installed.items()))
        self.write("offers-dkms", "dkms-0:3.2.1-1.el9.noarch\n")
        self.write("versions", "580.95.05\n\n" + dnf_said("versions"))
        self.write("fingerprint", f"fpr:::::::::{KEY}:\n")
        for place in ("etc/systemd/system", "etc/apt/sources.list.d", "usr/share/keyrings", "boot"):
            (self.folder / place).mkdir(parents=True)
        programs = self.folder / "bin"
        programs.mkdir()
        for name, body in PROGRAMS.items():
            ask = f'#!/bin/sh\ncd {self.folder} || exit\necho "{name} $*" >>asked\n'
            (programs / name).write_text(f"{ask}{body}\n")
            (programs / name).chmod(0o755)

    def write(self, path: str, text: str) -> None:
        """A file of the host, or one that its programs look at."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(
        self, probe: Probe, *words: str, versions: dict[str, str] | None = None, **driver: object
    ) -> subprocess.CompletedProcess[str]:
        """`driver WORDS` with the plan of that host, and the packages that its lock has."""
        plan = plan_host("gpu-1", settings.read([{"driver": driver}]), probe)
        held = replace(plan.driver, versions=tuple(sorted((versions or {}).items())))
        self.write("etc/bringup/driver/plan", self._inside(plan_text(plan, held)))
        self.write("etc/os-release", f"ID={probe.os_id}\nVERSION_ID={probe.os_version}\n")
        return subprocess.run(
            ["sh", "-c", self._inside(render("nvidia/driver.sh")), "driver", *words],
            env={"PATH": f"{self.folder}/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

    def _inside(self, text: str) -> str:
        """The text with every place of a host below the folder."""
        places = "|".join(map(re.escape, PLACES))
        return re.sub(rf"(?<![\w.])({places})", rf"{self.folder}\1", text)

    def asked(self, *beginnings: str) -> list[str]:
        """What was asked of programs, without the options that never change."""
        constant = ("--quiet --assumeyes --setopt=install_weak_deps=False ", "--quiet --assume-yes ")
        lines = (self.folder / "asked").read_text().splitlines()
        for words in constant:
            lines = [line.replace(words, "") for line in lines]
        return [line for line in lines if line.startswith(beginnings)]

    def packages(self) -> dict[str, str]:
        """What is installed now."""
        lines = (self.folder / "installed").read_text().splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}
