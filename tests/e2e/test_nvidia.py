"""Debian's own driver on a lab host: really installed, built by DKMS, held, waiting for a boot, removed.

The machine's own kernel is not Debian's, so no module of that driver can ever be loaded in it: what the role
builds for is the kernel that the host would boot next, and the host always waits for that boot.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.deploys import PYINFRA, Run
from tests.e2e.test_lab_machines import own_lab
from tests.e2e.test_proof import verify
from tests.lab import compiled, gpus, machines
from tests.lab.gpus import Pretended
from tests.lab.layout import REPOSITORY, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(2400)]

HOST = "lab-1"
OWN = {"source": "distribution", "modules": "proprietary"}
HELD = "dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n' '*nvidia*' 'libcuda1' | sed -n 's/^hi *//p'"
BARE = gpus.of_capture("tesla-t4-v11.xml").without_driver()
# what the role may change on a host, as it is now
STATE = (
    "dpkg -l | sha256sum; find /etc /opt/bringup /lib/modules -type f | sort | xargs sha256sum | sha256sum"
)


@dataclass(frozen=True)
class Site:
    """A lab with one bare host that has a Debian kernel and a card, and an operator's inventory for it."""

    lab: Lab
    folder: Path
    bare: list[str]

    def deploy(self, **driver: Any) -> Run:
        """Deploys the driver alone."""
        data = {
            "ssh_hostname": self.lab.host(HOST).address,
            "ssh_user": "root",
            "ssh_key": str(self.lab.login_key),
            "ssh_known_hosts_file": str(self.lab.known_hosts),
            "driver": driver,
        }
        (self.folder / "site.py").write_text(f"site = {[(HOST, data)]!r}\n")
        started = time.monotonic()
        done = subprocess.run(
            [str(PYINFRA), "-y", "--json", str(self.folder / "site.py"), "deploy.py"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=2000,
            check=False,
        )
        return Run(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def on_host(self, script: str, timeout_seconds: float = 300) -> str:
        done = machines.run(HOST, script, timeout_seconds=timeout_seconds, lab=self.lab)
        return done.stdout.strip()

    @property
    def kernel(self) -> str:
        """The kernel that the host would boot next."""
        return self.on_host("ls /lib/modules")

    def boots_with(self, card: Pretended) -> None:
        """Boots it as the machine that shows this card."""
        gpus.put_on(HOST, BARE, after_reboot=card, lab=self.lab)
        machines.power_off(HOST, lab=self.lab)
        machines.boot(HOST, lab=self.lab)

    def packages(self) -> list[str]:
        return self.on_host("dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n' | grep '^.i'").splitlines()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lab = own_lab(tmp_path_factory.mktemp("lab"), second_octet=130)
    try:
        machines.up(1, hubs=False, lab=lab)
        ready = machines.run(
            HOST,
            """set -e; export DEBIAN_FRONTEND=noninteractive
            sed -i 's/^Components:.*/Components: main/' /etc/apt/sources.list.d/*.sources
            # an initramfs with every module takes a minute to make, and there are five to make
            mkdir -p /etc/initramfs-tools/conf.d; echo MODULES=list >/etc/initramfs-tools/conf.d/small
            apt-get -qq update
            # what it would do is asked for; it shall not do it by itself
            systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer
            apt-get -qq -y --no-install-recommends install linux-image-amd64 ca-certificates curl libnuma1 \
                unattended-upgrades""",
            timeout_seconds=900,
            lab=lab,
        )
        assert ready.returncode == 0, ready.stderr
        compiled.take_over(HOST, lab)
        gpus.put_on(HOST, BARE, after_reboot=BARE, lab=lab)
        site = Site(lab, tmp_path_factory.mktemp("inventories"), [])
        site.bare.extend(site.packages())
        yield site
    finally:
        machines.clean(lab)


def test_what_debian_cannot_install_at_present_is_said_in_one_sentence(site: Site) -> None:
    run = site.deploy(source="distribution")
    assert run.code == 1
    *_, sentence = [line for line in run.errors.splitlines() if "driver: " in line and "cannot be" in line]
    assert "open modules of branch 535 cannot be installed" in sentence
    assert "firmware-nvidia-gsp (= 535." in sentence
    assert sentence.strip().endswith("Set driver.source to nvidia, or driver.modules to proprietary.")
    assert site.on_host("dpkg-query -W 'nvidia-*' 2>/dev/null") == ""


def test_the_module_is_built_for_the_kernel_that_boots_next_and_the_host_waits_for_that_boot(
    site: Site,
) -> None:
    run = site.deploy(**OWN)
    kernel = site.kernel
    assert run.code == 1, run.errors[-3000:]
    assert f"starts with the next boot (the kernel that runs, {site.on_host('uname -r')}" in run.errors
    assert site.on_host(f"modinfo -k {kernel} -F version nvidia-current").startswith("535.")
    assert "installed" in site.on_host(f"dkms status -k {kernel}")
    assert site.on_host(f"lsinitramfs /boot/initrd.img-{kernel} | grep bringup-nvidia.conf")
    assert site.on_host("cat /run/bringup/reboot-pending").startswith("the kernel that runs")
    compiled.keep(HOST, site.lab)


def test_a_second_run_changes_nothing_and_says_what_it_waits_for(site: Site) -> None:
    before = site.on_host(STATE)
    run = site.deploy(**OWN)
    assert run.code == 1
    assert "refused: lab-1: driver: 535." in run.errors
    assert run.changed() == {}
    assert site.on_host(STATE) == before


def test_no_upgrade_moves_one_part_of_it(site: Site) -> None:
    held = site.on_host(HELD).split()
    assert {"nvidia-kernel-dkms", "nvidia-smi", "libcuda1", "nvidia-persistenced"} <= set(held)
    upgrade = """
        mkdir -p /srv/newer/nvidia-smi/DEBIAN && cd /srv/newer
        printf 'Package: nvidia-smi\\nVersion: 535.999.01-1\\nArchitecture: amd64\\nMaintainer: x <x@y>\\n\
Description: x\\n' >nvidia-smi/DEBIAN/control
        dpkg-deb --build nvidia-smi >/dev/null && dpkg-scanpackages . >Packages 2>/dev/null
        printf 'Origin: newer\nSHA256:\n %s %s Packages\n' "$(sha256sum Packages | cut -d ' ' -f 1)" \
            "$(stat -c %s Packages)" >Release
        echo 'deb [trusted=yes] file:/srv/newer ./' >/etc/apt/sources.list.d/newer.list
        apt-get -qq update
        apt-get -s dist-upgrade
        apt-mark -qq unhold nvidia-smi; echo released; apt-get -s dist-upgrade; echo unattended
        echo 'Unattended-Upgrade::Origins-Pattern { "origin=newer"; };' >/etc/apt/apt.conf.d/99newer
        unattended-upgrade --dry-run -v; echo everything
        # without what the role wrote it would be taken
        mv /etc/apt/apt.conf.d/52bringup-nvidia /srv/; unattended-upgrade --dry-run -v
        mv /srv/52bringup-nvidia /etc/apt/apt.conf.d/
        apt-mark -qq hold nvidia-smi
        rm -r /etc/apt/sources.list.d/newer.list /etc/apt/apt.conf.d/99newer /srv/newer; apt-get -qq update
    """
    said = site.on_host(upgrade, timeout_seconds=600)
    parts = re.split("^(?:released|unattended|everything)$", said, flags=re.MULTILINE)
    kept, released, unattended, everything = parts
    assert "Inst nvidia-smi" not in kept and "nvidia-smi" in kept.partition("kept back")[2]
    assert "Inst nvidia-smi" in released
    assert "No packages found that can be upgraded unattended" in unattended
    assert "Packages that will be upgraded: nvidia-smi" in everything


def test_an_installation_that_was_cut_is_completed(site: Site) -> None:
    cut = (
        "cd /tmp && apt-get -qq download nvidia-smi && dpkg --unpack nvidia-smi_*.deb && rm nvidia-smi_*.deb"
    )
    site.on_host(cut)
    status = "dpkg-query -W -f '${db:Status-Abbrev}' nvidia-smi"
    assert site.on_host(status).endswith("U")
    said = site.deploy(**OWN).errors
    # what the task says of its steps stands between
    begun = said.partition("Starting operation: Install the NVIDIA driver")[2]
    assert "[lab-1] Success" in begun.partition("Starting operation: ")[0], said[-3000:]
    assert site.on_host(status) == "hi"


def of_packages(site: Site) -> Pretended:
    """The card, driven by what the packages on the host are of, on the kernel that they were built for."""
    card, kernel = gpus.of_capture("tesla-t4-v11.xml"), site.kernel
    release = site.on_host(f"modinfo -k {kernel} -F version nvidia-current")
    uname = f'case "$*" in -r) echo {kernel} ;; *) exec /usr/bin/uname "$@" ;; esac'
    driven = replace(card, capture=card.capture.replace(str(card.installed), release), installed=release)
    return replace(driven, loaded=release).with_programs(uname=uname)


def test_a_removed_hold_is_told_in_one_sentence_and_nothing_else_is(site: Site, tmp_path: Path) -> None:
    site.boots_with(of_packages(site))
    try:
        # its daemon would look for the device files of a real card
        run = site.deploy(**OWN, persistence=False)
        assert run.code == 0, run.errors[-3000:]
        site.on_host("apt-mark -qq unhold libcuda1")
        code, told = verify(tmp_path, inventory=site.folder / "site.py")
        site.on_host("apt-mark -qq hold libcuda1")
        mended = verify(tmp_path, inventory=site.folder / "site.py")
    finally:
        site.boots_with(BARE)
    assert code == 1
    (sentence,) = told[HOST]
    assert sentence.startswith("packages libcuda1 are held no more, so that any upgrade may move them")
    assert mended == (0, {HOST: []})


def test_a_reboot_that_is_allowed_happens_once_and_not_again_when_it_did_not_help(site: Site) -> None:
    boot = site.on_host("cat /proc/sys/kernel/random/boot_id")
    run = site.deploy(**OWN, reboot="allowed")
    assert run.code == 1
    after = site.on_host("cat /proc/sys/kernel/random/boot_id")
    assert after != boot, run.errors[-3000:]
    assert f"is not loaded in kernel {site.on_host('uname -r')}" in run.errors
    again = site.deploy(**OWN, reboot="allowed")
    assert "refused: lab-1: driver: the host was rebooted for 535." in again.errors
    assert site.on_host("cat /proc/sys/kernel/random/boot_id") == after


def test_without_it_the_host_is_as_it_was(site: Site) -> None:
    kernel = site.kernel
    run = site.deploy(state="absent")
    assert run.code == 0, run.errors[-3000:]
    assert set(site.packages()) - set(site.bare) == set()
    left = site.on_host("ls /etc/*/*bringup-nvidia* /etc/apt/*/*bringup* /etc/bringup/driver 2>/dev/null")
    assert left == ""
    assert site.on_host("grep -rl 'blacklist nouveau' /etc/modprobe.d /lib/modprobe.d") == ""
    assert site.on_host(f"lsinitramfs /boot/initrd.img-{kernel} | grep -c bringup-nvidia") == "0"
    assert site.deploy(state="absent").changed() == {}
