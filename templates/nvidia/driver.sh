#!/bin/sh
# The NVIDIA driver of this host, as /etc/bringup/driver/plan says; written by bringup, edits are overwritten.
#   driver install   packages, the module for every planned kernel, the initramfs, holds
#   driver start     loads the module anew; what used the GPUs is stopped before and started after
#   driver settle    after a reboot of ours: the module is loaded and of the planned release, the GPUs are well
#   driver mend      resets GPUs that ask for it, makes whole those that are cut
#   driver modules   loads what the fabric manager looks for
#   driver forget    drops notes of reboots that have helped
#   driver remove    takes away what `install` added
# Every step completes what an earlier, cut run left. Exit 3: only a reboot helps.
set -eu
LC_ALL=C
DEBIAN_FRONTEND=noninteractive
export LC_ALL DEBIAN_FRONTEND
state=/etc/bringup/driver
waiting=/run/bringup/reboot-pending
keyring=/usr/share/keyrings/bringup-nvidia.gpg
said=/run/bringup/driver.log
[ -e "$state/plan" ] || { echo "driver: $state/plan is missing. Run again." >&2; exit 1; }
. "$state/plan"
mkdir -p /run/bringup "$state"

{% include "nvidia/common.sh" %}

{% include "shell/patient.sh" %}

installed_names() {
    case $manager in
    apt) dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 2>/dev/null | sed -n 's/^.i. //p' | sort ;;
    dnf) rpm -qa --qf '%{NAME}\n' | sort -u ;;
    esac
}
version_of() {
    case $manager in
    apt) dpkg-query -W -f '${db:Status-Abbrev} ${Version}\n' "$1" 2>/dev/null | sed -n 's/^.i. //p' | grep . ;;
    dnf) rpm -q --qf '%{VERSION}-%{RELEASE}\n' "$1" 2>/dev/null ;;
    esac
}
# Names of installed packages that belong to a driver; the patterns are the plan's. Ubuntu has kernels of a flavour
# "nvidia", and what nouveau loads into the cards is no part of it either.
belonging() {
    case $manager in
    apt) eval "dpkg-query -W -f '\${db:Status-Abbrev} \${Package}\n' $held" 2>/dev/null | sed -n 's/^.i. //p' ;;
    dnf) eval "rpm -qa --qf '%{NAME}\n' $held" | sort -u ;;
    esac | grep -vE '^linux-|^nvidia-gpu-firmware$|container|toolkit' || true
}
installed_release() {
    for name in $(main_package) $(belonging | grep -E 'dkms|kmod') $packages; do
        version_of "$name" | release_of | grep . && return
    done
    return 1
}
module_release() {
    modinfo -k "$1" -F version nvidia 2>/dev/null || modinfo -k "$1" -F version nvidia-current 2>/dev/null ||
        modinfo -k "$1" -F version nvidia-current-open 2>/dev/null || true
}
loaded_release() { cat /sys/module/nvidia/version 2>/dev/null || true; }

dnf_() { dnf --quiet --assumeyes --setopt=install_weak_deps=False ${dnf_options:-} "$@"; }

fetch() {
    curl --fail --silent --show-error --location --retry 5 --retry-delay 2 --connect-timeout 20 --output "$2" "$1" ||
        fail "$1 cannot be fetched. Correct sources.nvidia, or set driver.source to distribution."
}

{% include "nvidia/sources.sh" %}

{% include "nvidia/choice.sh" %}

{% include "nvidia/packages.sh" %}

{% include "nvidia/running.sh" %}

{% include "nvidia/health.sh" %}

{% include "nvidia/removal.sh" %}

"$@"
