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
        quietly dnf_ versionlock delete $(belonging) || true
        [ -z "$mine" ] || quietly dnf_ remove $mine || fail "its packages cannot be removed: $(tail -n 1 "$said")"
        # what came along goes too, unless something else has come to need it: then rpm refuses
        while :; do
            left=$(installed_names | comm -12 - "$state/added")
            for name in $left; do quietly rpm -e --allmatches "$name" || true; done
            [ "$(installed_names | comm -12 - "$state/added")" != "$left" ] || break
        done
        # rpm writes a key's number in small letters
        [ ! -e "$state/key-brought" ] || quietly rpm -e "gpg-pubkey-$(echo "$key_short" | tr 'A-F' 'a-f')" || true
        [ -z "$stream" ] || quietly dnf_ module reset nvidia-driver || true
        ;;
    esac
    rm -f /etc/modprobe.d/bringup-nvidia.conf /etc/modules-load.d/bringup-nvidia.conf /etc/dracut.conf.d/90-bringup-nvidia.conf "$keyring" \
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
