# --- what is installed

apt_install() {
    quietly patient dpkg --configure -a || true
    apt_repository
    quietly patient apt update || say "the package index could not be renewed; what is there is used."
    # a driver of this branch that is there is completed at its own release, never moved on the way
    planned=${present:-$(installed_release || true)}
    [ "${planned%%.*}" = "$branch" ] || planned=
    planned=${pinned:-$planned}
    wanted=dkms
    for name in $packages; do
        if [ "$(version_of "$name" | release_of)" = "${planned:-none}" ]; then continue; fi
        if [ "$planned" ]; then
            exactly=$(apt_exact "$name" "$planned") || exit 1
            wanted="$wanted $exactly"
        else wanted="$wanted $name"; fi
    done
    # what the lock has at another version than the host
    for pair in $versions; do
        there=$(version_of "${pair%%=*}") || continue
        [ "$there" = "${pair#*=}" ] && continue
        exactly=$(apt_exact "${pair%%=*}" "$planned") || exit 1
        wanted="$wanted $exactly"
    done
    for name in $optional $headers; do
        version_of "$name" >/dev/null && continue
        if locked "$name" >/dev/null; then
            exactly=$(apt_exact "$name" "$planned") || exit 1
            wanted="$wanted $exactly"
        elif apt-cache $apt_options show "$name" >/dev/null 2>&1; then wanted="$wanted $name"
        elif [ "$name" = "linux-headers-$next_kernel" ] && [ ! -e "/lib/modules/$next_kernel/build/Makefile" ]; then
            fail "the package sources have no $name, which the module is built against. Boot another kernel."
        fi
    done
    apt_resolve $wanted $beside
    [ "$planned" ] ||
        planned=$(sed -n "s/^Inst $(main_package) \(\[[^]]*\] \)\{0,1\}(\([^ ]*\) .*/\2/p" "$said" | release_of)
    for name in $exact; do
        if [ "$(version_of "$name" | release_of)" = "$planned" ]; then continue; fi
        exactly=$(apt_exact "$name" "$planned") || exit 1
        wanted="$wanted $exactly"
    done
    [ -z "$exact" ] || apt_resolve $wanted $beside
    as_locked
    not_again
    remember
    quietly apt install $wanted $beside || undo "$(sed -n 's/^E: //p' "$said" | tail -n 1)"
}
dnf_install() {
    dnf_repository
    first=${packages##* }
    planned=${present:-$(installed_release || true)}
    offered=$(dnf_ repoquery --showduplicates --qf '%{version}\n' "$first" | sort -Vu)
    [ "${planned%%.*}" = "$branch" ] || planned=$(echo "$offered" | grep "^$branch\." | tail -n 1)
    [ "$planned" ] || fail "the package sources have no $first of branch $branch. $otherwise"
    planned=${pinned:-$planned}
    [ "$planned" != "$pinned" ] || echo "$offered" | grep -qxF "$planned" || none_of "$first" "$planned" "$offered"
    not_again
    wanted="dkms $headers 'dnf-command(versionlock)'"
    for name in $packages $optional $exact; do
        wanted="$wanted $name-$(locked "$name" || echo "$planned")"
    done
    remember
    quietly dnf_ versionlock delete $(belonging) || true
    # the open and the proprietary modules conflict: one replaces the other
    if ! quietly eval "dnf_ install --allowerasing $wanted $beside"; then
        problem=$(grep -m 1 -E 'nothing provides|Unable to find a match|cannot install|conflicts with' "$said" |
            sed 's/^[ -]*//; s/^Problem: //; s/^Error: //')
        undo "${problem:-$(tail -n 1 "$said")}"
    fi
}

# A release that did not come up here is not tried again unasked.
not_again() {
    if [ -s "$state/failed" ] && [ "$(cut -d ' ' -f 1 "$state/failed")" = "$planned" ]; then
        fail "release $planned did not come up on this host before ($(cut -d ' ' -f 2- "$state/failed")). Set" \
            "driver.version to another, or remove $state/failed to have it tried again."
    fi
}
give_up() {
    planned=$(installed_release || true)
    ! replaced || echo "$planned $1" >"$state/failed"
    undo "$1"
}
# What runs is what is installed, and drives the GPUs.
proven() {
    [ "$(loaded_release)" ] && [ "$(module_release "$(uname -r)")" = "$(loaded_release)" ] && nvidia-smi -L >/dev/null 2>&1
}

# What was there before: names to tell what is added, versions to go back to.
remember() {
    # of a run that was cut the first look counts
    [ -e "$state/before" ] || installed_names >"$state/before"
    # what an earlier upgrade replaced is of no use once that upgrade runs
    ! proven || rm -f "$state/previous"
    if [ ! -e "$state/previous" ]; then
        for name in $(belonging); do echo "$name $(version_of "$name")"; done >"$state/previous.new"
        mv -f "$state/previous.new" "$state/previous"
    fi
}
# An installation or a start that failed: the release that was there before comes back, where there was one.
undo() {
    note_added
    if ! replaced; then
        if [ -s "$state/previous" ]; then stream_back; (hold) || true; fi
        rm -f "$state/previous"
        fail "it could not be installed: $1. Mend that and run again."
    fi
    old=$(release_of <"$state/previous")
    say "release ${planned:-of branch $branch} could not be put to work: $1"
    put_back || fail "release $old, which was there before, could not be put back either: $(tail -n 1 "$said")"
    rm -f "$state/previous"
    say "release $old, which was there before, is installed again."
    build && hold
    if [ "$(loaded_release)" != "$(installed_release)" ]; then load && start_units || true; fi
    start_users
    fail "release $old, which was there before, is back. Look at why the other failed, or set driver.branch."
}
# The module stream of what was there.
stream_back() {
    [ "$stream" ] || return 0
    flavour=dkms
    ! grep -q 'open' "$state/previous" || flavour=open
    old=$(release_of <"$state/previous")
    quietly dnf_ module reset nvidia-driver || true
    quietly dnf_ module enable "nvidia-driver:${old%%.*}-$flavour" || true
}
# The packages that were there, at their versions, and none that came in their place.
put_back() {
    extra=$(for name in $(belonging); do grep -q "^$name " "$state/previous" || echo "$name"; done)
    case $manager in
    apt) quietly apt install $(sed 's/ /=/' "$state/previous") $(for name in $extra; do echo "$name-"; done) ;;
    dnf)
        quietly dnf_ versionlock delete $(belonging) || true
        stream_back
        [ -z "$extra" ] || quietly rpm -e --nodeps $extra || true
        quietly dnf_ install --allowerasing $(sed 's/ /-/' "$state/previous")
        ;;
    esac
}
# Whether another release was there before this one.
replaced() { [ -s "$state/previous" ] && [ "$(sort "$state/previous")" != "$(previous_now)" ]; }
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
    dnf) quietly dnf_ versionlock delete $(belonging) || true; quietly dnf_ versionlock add $(belonging) ;;
    esac || fail "what belongs to it could not be held: $(tail -n 1 "$said")"
}
install() {
    case $manager in apt) apt_install ;; dnf) dnf_install ;; esac
    note_added
    build || give_up "its module could not be built"
    hold
    say "release $(installed_release) is installed, its module built for $kernels, all of it held."
}
