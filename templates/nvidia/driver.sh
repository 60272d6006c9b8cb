#!/bin/sh
# The NVIDIA driver of this host, as /etc/bringup/driver/plan says; written by bringup, edits are overwritten.
#   driver install   packages, the module for every planned kernel, the initramfs, holds
#   driver start     loads the module anew; what used the GPUs is stopped before and started after
#   driver settle    after a reboot of ours: the module is loaded and of the planned release
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

# on the error output: a sentence must not end in a value that a function gives back
say() { echo "driver: $*" >&2; }
# Under systemd, words of a process that is gone at once lose their place in the journal.
fail() { say "$@"; [ -z "${INVOCATION_ID:-}" ] || sleep 1; exit 1; }
# The output of a package manager is kept for the one sentence that it is worth when it fails.
quietly() { "$@" >"$said" 2>&1; }
release_of() { grep -oE '[0-9]{3}\.[0-9]{2,3}(\.[0-9]{2})?' | head -n 1; }
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
# Names of installed packages that belong to a driver; the patterns are the plan's.
belonging() {
    case $manager in
    apt) eval "dpkg-query -W -f '\${db:Status-Abbrev} \${Package}\n' $held" 2>/dev/null | sed -n 's/^.i. //p' ;;
    dnf) eval "rpm -qa --qf '%{NAME}\n' $held" | sort -u ;;
    esac | grep -vE 'container|toolkit' || true
}
main_package() { for name in $packages; do case $name in *dkms*) echo "$name"; return ;; esac; done; }
installed_release() {
    for name in $(main_package) $packages; do version_of "$name" | release_of && return; done
    return 1
}
module_release() {
    modinfo -k "$1" -F version nvidia 2>/dev/null || modinfo -k "$1" -F version nvidia-current 2>/dev/null ||
        modinfo -k "$1" -F version nvidia-current-open 2>/dev/null || true
}
loaded_release() { cat /sys/module/nvidia/version 2>/dev/null || true; }

apt() {
    apt-get --quiet --assume-yes --no-install-recommends --allow-change-held-packages --allow-downgrades \
        -o DPkg::Lock::Timeout=600 $apt_options "$@"
}
dnf_() { dnf --quiet --assumeyes --setopt=install_weak_deps=False "$@"; }

fetch() {
    curl --fail --silent --show-error --location --retry 5 --retry-delay 2 --connect-timeout 20 --output "$2" "$1" ||
        fail "$1 cannot be fetched. Correct sources.nvidia, or set driver.source to distribution."
}

# --- where packages come from

apt_repository() {
    if [ "$source" = nvidia ]; then
        if [ ! -s "$keyring" ]; then
            scratch=$(mktemp -d)
            fetch "$repository/$key" "$scratch/keyring.deb"
            echo "$key_hash  $scratch/keyring.deb" | sha256sum --check --status ||
                fail "$repository/$key has not the pinned sha256. Correct sources.nvidia."
            dpkg-deb --fsys-tarfile "$scratch/keyring.deb" |
                tar -xO ./usr/share/keyrings/cuda-archive-keyring.gpg >"$keyring.new"
            chmod 644 "$keyring.new"; mv -f "$keyring.new" "$keyring"
            rm -rf "$scratch"
        fi
        # the key that NVIDIA withdrew
        rm -f /etc/apt/trusted.gpg.d/*7fa2af80*
        # another list for the same place may have come with NVIDIA's own keyring package
        if [ -z "$apt_options" ] && grep -qsrF "$repository" /etc/apt/sources.list /etc/apt/sources.list.d \
            --exclude='bringup-*'; then return; fi
        list=$apt_lists/bringup-nvidia.list
        mkdir -p "$apt_lists"
        echo "deb [signed-by=$keyring] $repository/ /" >"$list.new"; mv -f "$list.new" "$list"
    elif [ -z "$apt_options" ]; then
        apt_components
    fi
}
# The components with the driver, at every archive that the host's own sources name without them.
apt_components() {
    list=/etc/apt/sources.list.d/bringup-nvidia.sources
    # ours stands beside what the host's own sources lack, so it is left out of the count
    rm -f "$list"
    apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(SOURCESENTRY)' \
        'Created-By: Packages' | sort -u >"$said"
    . /etc/os-release
    case $ID in
    ubuntu) wanted='restricted multiverse universe' ;;
    *) wanted='contrib non-free non-free-firmware' ;;
    esac
    : >"$list.new"
    grep ' main ' "$said" | while read -r place suite _ entry; do
        missing=
        for component in $wanted; do
            grep -qF "$place $suite $component" "$said" || missing="$missing $component"
        done
        [ "$missing" ] || continue
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents:%s\n' "$place" "$suite" "$missing" >>"$list.new"
        # apt wants the same key wherever it meets the same place
        signer=$(sed -n 's/^Signed-By: *\(\/[^ ]*\).*/\1/p; s/.*signed-by=\([^] ]*\).*/\1/p' "${entry%:*}" | head -n 1)
        [ "$signer" ] && printf 'Signed-By: %s\n' "$signer" >>"$list.new"
        echo >>"$list.new"
    done
    if [ -s "$list.new" ]; then mv -f "$list.new" "$list"; else rm -f "$list.new"; fi
}
dnf_repository() {
    if [ "$source" = nvidia ] && ! rpm -q gpg-pubkey --qf '%{VERSION}\n' 2>/dev/null | grep -qi "${key_short}"; then
        scratch=$(mktemp -d)
        fetch "$repository/$key" "$scratch/key"
        gpg --homedir "$scratch" --show-keys --with-colons "$scratch/key" 2>/dev/null | grep -q "^fpr:.*:$key_hash:" ||
            fail "$repository/$key is not the pinned key. Correct sources.nvidia."
        rpm --import "$scratch/key"; rm -rf "$scratch"
    fi
    if ! quietly dnf_ repoquery --available dkms || [ ! -s "$said" ]; then
        quietly dnf_ install epel-release ||
            fail "dkms is in EPEL, which is not enabled and cannot be installed. Enable EPEL on this host."
        for name in crb powertools; do dnf config-manager --set-enabled "$name" >/dev/null 2>&1 || true; done
    fi
    if [ "$stream" ]; then
        quietly dnf_ module reset nvidia-driver || true
        quietly dnf_ module enable "$stream" ||
            fail "the repository has no stream $stream. Set driver.branch to one that it has."
    fi
}

# --- what is installed

# apt's plan, made before anything is changed; what it cannot resolve becomes a sentence.
apt_resolve() {
    apt --dry-run install "$@" >"$said" 2>&1 && return
    missing=$(sed -n 's/^E: Unable to locate package //p; s/^E: Package .\(.*\). has no installation candidate/\1/p' \
        "$said" | tr '\n' ' ')
    unmet=$(sed -n '/unmet dependencies/,/^E:/p' "$said" | sed '1d; /^E:/d' | tr -s ' \n' ' ' |
        sed 's/^ //; s/ $//; s/ : Depends: / needs /; s/ Depends: / and /g; s/but it is not \(going to be installed\|installable\)//g')
    rest=$(sed -n 's/^E: //p' "$said" | tail -n 1)
    if [ "$missing" ]; then problem="the package sources have no ${missing% }"
    elif [ "$unmet" ]; then problem="the package sources have not what it depends on: $unmet"
    else problem="apt refuses: $rest"; fi
    fail "$modules modules of branch $branch cannot be installed, $problem. $otherwise"
}
# "name=version" of a package at the very release of the driver.
apt_exact() {
    wanted=$(apt-cache $apt_options madison "$1" | cut -d '|' -f 2 | tr -d ' ' | grep -F "$2" | head -n 1)
    [ "$wanted" ] || fail "the package sources have no $1 of release $2, which the driver is of. $otherwise"
    echo "$1=$wanted"
}
apt_install() {
    quietly dpkg --configure -a || true
    apt_repository
    quietly apt update || say "the package index could not be renewed; what is there is used."
    # a driver of this branch that is there is completed at its own release, never moved on the way
    planned=$(installed_release || true)
    [ "${planned%%.*}" = "$branch" ] || planned=
    wanted=dkms
    for name in $packages; do
        if [ "$(version_of "$name" | release_of)" = "${planned:-none}" ]; then continue; fi
        if [ "$planned" ]; then wanted="$wanted $(apt_exact "$name" "$planned")"; else wanted="$wanted $name"; fi
    done
    for name in $optional $headers; do
        version_of "$name" >/dev/null && continue
        if apt-cache $apt_options show "$name" >/dev/null 2>&1; then wanted="$wanted $name"
        elif [ "$name" = "linux-headers-$next_kernel" ] && [ ! -e "/lib/modules/$next_kernel/build/Makefile" ]; then
            fail "the package sources have no $name, which the module is built against. Boot another kernel."
        fi
    done
    apt_resolve $wanted $beside
    [ "$planned" ] ||
        planned=$(sed -n "s/^Inst $(main_package) \(\[[^]]*\] \)\{0,1\}(\([^ ]*\) .*/\2/p" "$said" | release_of)
    for name in $exact; do
        [ "$(version_of "$name" | release_of)" = "$planned" ] || wanted="$wanted $(apt_exact "$name" "$planned")"
    done
    [ -z "$exact" ] || apt_resolve $wanted $beside
    remember
    quietly apt install $wanted $beside || undo "$(sed -n 's/^E: //p' "$said" | tail -n 1)"
}
dnf_install() {
    dnf_repository
    first=${packages##* }
    planned=$(installed_release || true)
    [ "${planned%%.*}" = "$branch" ] ||
        planned=$(dnf_ repoquery --showduplicates --qf '%{version}\n' "$first" | grep "^$branch\." | sort -V | tail -n 1)
    [ "$planned" ] || fail "the package sources have no $first of branch $branch. $otherwise"
    wanted="dkms $headers 'dnf-command(versionlock)'"
    for name in $packages $optional $exact; do wanted="$wanted $name-$planned"; done
    remember
    quietly dnf versionlock delete $(belonging) || true
    if ! quietly eval "dnf_ install $wanted $beside"; then
        problem=$(grep -m 1 -E 'nothing provides|No match for argument|Unable to find a match|cannot install' "$said" |
            sed 's/^[ -]*//')
        undo "${problem:-$(tail -n 1 "$said")}"
    fi
}

# What was there before: names to tell what is added, versions to go back to.
remember() {
    # of a run that was cut the first look counts
    [ -e "$state/before" ] || installed_names >"$state/before"
    if [ ! -e "$state/previous" ]; then
        for name in $(belonging); do echo "$name $(version_of "$name")"; done >"$state/previous.new"
        mv -f "$state/previous.new" "$state/previous"
    fi
}
# An installation or a start that failed: the release that was there before comes back, where there was one.
undo() {
    note_added
    if [ ! -s "$state/previous" ] || [ "$(sort "$state/previous")" = "$(previous_now)" ]; then
        rm -f "$state/previous"
        fail "it could not be installed: $1. Mend that and run again."
    fi
    old=$(release_of <"$state/previous")
    say "release ${planned:-of branch $branch} could not be put to work: $1"
    case $manager in
    apt) quietly apt install $(sed 's/ /=/' "$state/previous") ;;
    dnf) quietly dnf_ downgrade $(sed 's/ /-/' "$state/previous") ;;
    esac || fail "release $old, which was there before, could not be put back either: $(tail -n 1 "$said")"
    rm -f "$state/previous"
    build && hold
    if [ "$(loaded_release)" != "$(installed_release)" ]; then load && start_units || true; fi
    start_users
    fail "release $old, which was there before, is back. Look at why the other failed, or set driver.branch."
}
previous_now() { for name in $(belonging); do echo "$name $(version_of "$name")"; done | sort; }
note_added() {
    [ -e "$state/before" ] || return 0
    { cat "$state/added" 2>/dev/null || true; installed_names | comm -13 "$state/before" -; } | sort -u >"$state/added.new"
    mv -f "$state/added.new" "$state/added"
    rm -f "$state/before"
}

# The module for every planned kernel; its compiler's own words are worth more than DKMS's.
build() {
    release=$(installed_release)
    for kernel in $kernels; do
        [ "$(module_release "$kernel")" = "$release" ] || quietly dkms autoinstall -k "$kernel" || true
        if [ "$(module_release "$kernel")" != "$release" ]; then
            log=$(ls -t /var/lib/dkms/nvidia*/"$release"/build/make.log /var/lib/dkms/nvidia*/"$release"/*/*/log/make.log \
                2>/dev/null | head -n 1)
            words=$(grep -m 1 -iE 'error|not found' "${log:-$said}" | cut -c 1-200 || true)
            say "the module $release could not be built for kernel $kernel: ${words:-$(tail -n 1 "$said")}"
            return 1
        fi
        depmod "$kernel"
        initramfs "$kernel"
    done
}
# An initramfs made before the blacklist, or before the module, would load nouveau first.
initramfs() {
    for image in "/boot/initrd.img-$1" "/boot/initramfs-$1.img"; do
        [ -e "$image" ] || continue
        newest=$(ls -t "$image" /etc/modprobe.d/bringup-nvidia.conf "/lib/modules/$1/modules.dep" | head -n 1)
        [ "$newest" = "$image" ] && continue
        if command -v update-initramfs >/dev/null; then quietly update-initramfs -u -k "$1"
        else quietly dracut --force "$image" "$1"; fi || fail "the initramfs of $1 could not be rebuilt: $(tail -n 1 "$said")"
    done
}
hold() {
    case $manager in
    apt) quietly apt-mark hold $(belonging) ;;
    dnf) quietly dnf versionlock delete $(belonging) || true; quietly dnf versionlock add $(belonging) ;;
    esac || fail "what belongs to it could not be held: $(tail -n 1 "$said")"
}
install() {
    case $manager in apt) apt_install ;; dnf) dnf_install ;; esac
    note_added
    build || undo "its module could not be built"
    hold
    say "release $(installed_release) is installed, its module built for $kernels, all of it held."
}

# --- what runs

# Units of ours, and of the driver's own, that keep the GPUs busy; those that ran are started again.
users="$(cd /etc/systemd/system && ls -d vllm-*.service ollama-*.service 2>/dev/null || true)"
beside_units='nvidia-dcgm.service nvidia-fabricmanager.service nvidia-imex.service nvidia-persistenced.service'
stop_users() {
    running=
    for unit in $users nvidia-dcgm.service; do
        case $(systemctl is-active "$unit" 2>/dev/null) in active|activating|reloading) running="$running $unit" ;; esac
    done
    [ -e "$state/stopped" ] || echo $running >"$state/stopped"
    for unit in $users $beside_units; do systemctl stop "$unit" 2>/dev/null || true; done
    holder=$(find /proc/[0-9]*/fd -lname '/dev/nvidia[0-9]*' -printf '%h\n' 2>/dev/null | cut -d / -f 3 | sort -u | head -n 1)
    if [ "$holder" ]; then
        start_users
        fail "$(cat "/proc/$holder/comm" 2>/dev/null) (pid $holder) uses the GPUs and is none of ours. Stop it, run again."
    fi
}
start_users() {
    for unit in $(cat "$state/stopped" 2>/dev/null); do
        systemctl reset-failed "$unit" 2>/dev/null || true
        systemctl --no-block start "$unit" || true
    done
    rm -f "$state/stopped"
}
kernel_says() {
    { journalctl -k -b -q --no-pager -o cat 2>/dev/null || dmesg; } |
        grep -iE 'NVRM|nvidia|is rejected|lockdown|nouveau' | grep -v 'loading NVIDIA' | tail -n 1 | cut -c 1-200
}
wait_for_reboot() {
    # with the module that is loaded they run as well as before
    [ "$reboot" = allowed ] || start_users
    echo "$*" >"$waiting"
    say "only a reboot helps: $*"
    exit 3
}
load() {
    for module in nvidia_uvm nvidia_drm nvidia_modeset nvidia_peermem nvidia nouveau nova_drm nova_core; do
        [ -d "/sys/module/$module" ] || continue
        modprobe -r "$module" 2>/dev/null || true
    done
    for module in nvidia nouveau nova_core; do
        [ -d "/sys/module/$module/holders" ] && wait_for_reboot "$module is in use and cannot be unloaded"
    done
    modprobe nvidia 2>"$said" && modprobe nvidia-uvm 2>>"$said"
}
settle() { [ ! -e "$state/rebooted" ] || runs; }
runs() {
    release=$(installed_release)
    if [ "$(loaded_release)" != "$release" ]; then
        modprobe nvidia 2>"$said" || true
    fi
    if [ "$(loaded_release)" != "$release" ]; then
        words=$(kernel_says)
        say "the module $release is not loaded in kernel $(uname -r): ${words:-$(tail -n 1 "$said" 2>/dev/null)}"
        return 1
    fi
    modprobe nvidia-uvm 2>/dev/null || true
    start_units
    shown=$(nvidia-smi -L 2>"$said" | grep -c '^GPU' || true)
    there=0
    for device in /sys/bus/pci/devices/*; do
        case $(cat "$device/vendor" 2>/dev/null) in 0x10de) case $(cat "$device/class") in 0x03*) there=$((there + 1)) ;; esac ;; esac
    done
    if [ "$shown" -lt "$there" ]; then
        words=$(kernel_says)
        say "nvidia-smi shows $shown of $there GPUs: ${words:-$(tail -n 1 "$said")}"
        return 1
    fi
    rm -f "$waiting" "$state/previous" "$state/rebooted"
    say "release $release runs on $shown GPUs."
}
start_units() {
    systemctl daemon-reload
    for unit in $units; do
        systemctl --quiet enable "$unit" 2>/dev/null || continue
        systemctl restart "$unit" ||
            { say "$unit does not start: $(journalctl -q --no-pager -o cat -n 1 -u "$unit")"; return 1; }
    done
}
# What a reboot would cut is stopped first; a second reboot for the same would help as little.
before_reboot() {
    stop_users
    echo "$(cat /proc/sys/kernel/random/boot_id) $(installed_release)" >"$state/rebooted"
    # what was stopped is enabled, and starts with the boot
    rm -f "$state/stopped"
}
start() {
    case " $kernels " in *" $(uname -r) "*) ;; *) wait_for_reboot "kernel $(uname -r) has no module of it" ;; esac
    stop_users
    if load && runs; then start_users; return; fi
    words=$(kernel_says)
    [ -s "$state/previous" ] && undo "${words:-$(tail -n 1 "$said")}"
    start_users
    fail "the module does not load: ${words:-$(tail -n 1 "$said")}. Mend that and run again."
}

# --- away with it

remove() {
    for unit in $users; do systemctl stop "$unit" 2>/dev/null || true; done
    for unit in $beside_units; do systemctl disable --now "$unit" 2>/dev/null || true; done
    [ -e "$state/added" ] || : >"$state/added"
    mine=$(for name in $(belonging) $headers; do grep -xF "$name" "$state/added" || true; done | sort -u)
    case $manager in
    apt)
        quietly apt-mark unhold $(belonging) || true
        [ -z "$mine" ] || quietly apt purge $mine || fail "its packages cannot be removed: $(tail -n 1 "$said")"
        # what came along goes too, unless something else has come to need it
        left=$(installed_names | comm -12 - "$state/added")
        [ -z "$left" ] || quietly apt-mark auto $left
        unneeded=$(apt-get -s -o APT::AutoRemove::RecommendsImportant=false -o APT::AutoRemove::SuggestsImportant=false \
            autoremove 2>/dev/null | sed -n 's/^Remv \([^ ]*\).*/\1/p' | sort | comm -12 - "$state/added")
        [ -z "$unneeded" ] || quietly apt purge $unneeded || fail "what came along cannot be removed: $(tail -n 1 "$said")"
        ;;
    dnf)
        quietly dnf versionlock delete $(belonging) || true
        [ -z "$mine" ] || quietly dnf_ remove $mine || fail "its packages cannot be removed: $(tail -n 1 "$said")"
        [ -z "$stream" ] || quietly dnf_ module reset nvidia-driver || true
        ;;
    esac
    rm -f /etc/modprobe.d/bringup-nvidia.conf /etc/dracut.conf.d/90-bringup-nvidia.conf "$keyring" \
        /etc/apt/sources.list.d/bringup-nvidia.* /etc/apt/preferences.d/bringup-nvidia \
        /etc/apt/apt.conf.d/52bringup-nvidia /etc/yum.repos.d/bringup-nvidia.repo \
        /etc/systemd/system/nvidia-persistenced.service.d/bringup.conf /etc/bringup/apt.d/bringup-nvidia.list
    for image in /boot/initrd.img-* /boot/initramfs-*.img; do
        [ -e "$image" ] || continue
        kernel=${image#/boot/init*-}; kernel=${kernel%.img}
        if command -v update-initramfs >/dev/null; then quietly update-initramfs -u -k "$kernel" || true
        else quietly dracut --force "$image" "$kernel" || true; fi
    done
    systemctl daemon-reload
    for module in nvidia_uvm nvidia_drm nvidia_modeset nvidia_peermem nvidia; do modprobe -r "$module" 2>/dev/null || true; done
    modprobe nouveau 2>/dev/null || true
    rm -rf "$state" "$waiting"
    say "is removed, with everything that came for it."
}

"$@"
