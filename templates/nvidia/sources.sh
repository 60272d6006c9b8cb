# --- where packages come from

apt_key() {
    [ ! -s "$keyring" ] || return 0
    scratch=$(mktemp -d)
    fetch "$repository/$key" "$scratch/keyring.deb"
    echo "$key_hash  $scratch/keyring.deb" | sha256sum --check --status ||
        fail "$repository/$key has not the pinned sha256. Correct sources.nvidia."
    dpkg-deb --fsys-tarfile "$scratch/keyring.deb" |
        tar -xO ./usr/share/keyrings/cuda-archive-keyring.gpg >"$keyring.new"
    chmod 644 "$keyring.new"; mv -f "$keyring.new" "$keyring"
    rm -rf "$scratch"
}
apt_repository() {
    # a bundle has it where apt looks already
    if [ "$source" = nvidia ] && [ "$repository" ]; then
        apt_key
        # the key that NVIDIA withdrew
        rm -f /etc/apt/trusted.gpg.d/*7fa2af80*
        # another list for the same place may have come with NVIDIA's own keyring package
        list=$apt_lists/bringup-nvidia.list
        if [ -z "$apt_options" ] && grep -shE '^(deb|URIs)' /etc/apt/sources.list -r /etc/apt/sources.list.d \
            --include='*.list' --include='*.sources' --exclude='bringup-*' | grep -qF "$repository"; then
            # with another key for the same place apt would read neither
            rm -f "$list"
            return
        fi
        mkdir -p "$apt_lists"
        echo "deb [signed-by=$keyring] $repository/ /" >"$list.new"; mv -f "$list.new" "$list"
    elif [ -z "$apt_options" ]; then
        apt_components
    fi
}
# The components with the driver, at every archive that the host's own sources name without them.
apt_components() {
    list=$apt_lists/bringup-nvidia.sources
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
unreadable() {
    words=$(grep -m 1 '^Error: ' "$said" || tail -n 1 "$said")
    fail "the package sources cannot be read: ${words#Error: }. Correct sources.nvidia, or the host's own, and run again."
}
dnf_repository() {
    if [ "$source" = nvidia ] && [ "$repository" ] && ! rpm -q gpg-pubkey --qf '%{VERSION}\n' 2>/dev/null | grep -qi "${key_short}"; then
        scratch=$(mktemp -d)
        fetch "$repository/$key" "$scratch/key"
        gpg --homedir "$scratch" --show-keys --with-colons "$scratch/key" 2>/dev/null | grep -q "^fpr:.*:$key_hash:" ||
            fail "$repository/$key is not the pinned key. Correct sources.nvidia."
        rpm --import "$scratch/key"; rm -rf "$scratch"
        : >"$state/key-brought"
    fi
    quietly dnf_ repoquery --available dkms || unreadable
    if ! grep -q '^dkms-' "$said"; then
        if ! quietly dnf_ install epel-release; then
            grep -qE 'Unable to find a match|No match for argument' "$said" || unreadable
            fail "dkms is in EPEL, which is not enabled and cannot be installed. Enable EPEL on this host."
        fi
        for name in crb powertools; do dnf config-manager --set-enabled "$name" >/dev/null 2>&1 || true; done
    fi
    if [ "$stream" ]; then
        quietly dnf_ module reset nvidia-driver || true
        quietly dnf_ module enable "$stream" ||
            fail "the repository has no stream $stream. Set driver.branch to one that it has."
    fi
}
