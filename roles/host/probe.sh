# Read-only. Prints what a host is and what of ours is on it, in blocks that begin with "@@name".
# POSIX sh and coreutils only: a bare host has nothing else. Needs root.
LC_ALL=C; export LC_ALL
block() { printf '@@%s\n' "$1"; }
has() { command -v "$1" >/dev/null 2>&1; }

# Whoever reads the answer gives up at the first byte that is no UTF-8, as names of files and programs may have.
valid() { if has iconv; then iconv -c -f UTF-8 -t UTF-8; else cat; fi; }

probe() {
# where Ollama's models are; below it, where they were before
ollama_stores=/etc/bringup/ollama-store
ollama=$(head -n 1 "$ollama_stores" 2>/dev/null); ollama=${ollama:-/srv/models/ollama}

block identity; id -u; cat /proc/sys/kernel/random/boot_id; cat /proc/sys/kernel/hostname
block os; cat /etc/os-release 2>/dev/null
block kernel; uname -r; uname -m
block glibc; getconf GNU_LIBC_VERSION 2>/dev/null
block virt; systemd-detect-virt 2>/dev/null
block systemd; [ -d /run/systemd/system ] && systemctl --version | head -n 1
block cpu; grep -c '^processor' /proc/cpuinfo; grep -m 1 -E '^(flags|Features)' /proc/cpuinfo
block memory; grep -E '^(MemTotal|MemAvailable):' /proc/meminfo
block disk
for path in / /opt /srv/models /var/lib /usr /boot; do
    there=$path; while [ ! -d "$there" ]; do there=$(dirname "$there"); done
    df -Pk "$there" | tail -n 1 | { read -r device _ _ free _; echo "$path $device $free"; }
done
block mounts
df -Pkl 2>/dev/null | tail -n +2 | while read -r _ _ _ free _ path; do echo "$path $free"; done
# one whose server is away would not answer
while read -r _ path kind _; do
    case $kind in nfs | nfs4 | cifs | ceph | lustre | fuse.*) echo "$path -" ;; esac
done </proc/self/mounts
block addresses
if has ip; then ip -o addr show scope global | while read -r _ device _ address _; do echo "$device $address"; done; fi
block pci
gpu=; [ -d /etc/bringup/driver ] && gpu=1
for device in /sys/bus/pci/devices/*; do
    [ -r "$device/vendor" ] && read -r vendor <"$device/vendor" && [ "$vendor" = 0x10de ] || continue
    read -r id <"$device/device"; read -r class <"$device/class"
    echo "${device##*/} $vendor $id $class"; gpu=1
done
block driver; cat /sys/module/nvidia/version 2>/dev/null
block driver_file; cat /proc/driver/nvidia/version 2>/dev/null
block modules; ls /sys/module 2>/dev/null | grep -E '^(nvidia|nouveau|nova)'
block smi; if has nvidia-smi; then timeout 90 nvidia-smi -q -x 2>&1 || echo "exit $?"; fi
block secure_boot
if has mokutil; then mokutil --sb-state 2>&1
else
    # the firmware's own variable: four bytes of attributes, then whether it is on
    for variable in /sys/firmware/efi/efivars/SecureBoot-*; do
        [ -r "$variable" ] && [ "$(tail -c 1 "$variable" | od -An -t u1 | tr -d ' ')" = 1 ] && echo "SecureBoot enabled"
    done
fi
# What a driver is made of, on hosts that have a GPU or had one of our drivers.
block driver_packages
if [ "$gpu" ] && has dpkg-query; then
    dpkg-query -W -f '${Package} ${db:Status-Abbrev} ${Version}\n' @DRIVER_APT@ 2>/dev/null |
        grep -v ' un '
elif [ "$gpu" ] && has rpm; then rpm -qa --qf '%{NAME} ii %{VERSION}-%{RELEASE}\n' @DRIVER_DNF@ 2>/dev/null; fi
block kernels
for tree in /lib/modules/*; do
    [ "$gpu" ] && [ -d "$tree" ] || continue
    kernel=${tree##*/}; image=-; headers=unknown; module=
    [ -e "/boot/vmlinuz-$kernel" ] || [ -e "$tree/vmlinuz" ] && image=image
    # Debian's own module has another name
    if has modinfo; then
        module=$(modinfo -k "$kernel" -F version nvidia 2>/dev/null || modinfo -k "$kernel" -F version \
            nvidia-current 2>/dev/null || modinfo -k "$kernel" -F version nvidia-current-open 2>/dev/null)
    fi
    if [ -e "$tree/build/Makefile" ]; then headers=installed
    elif has apt-cache && ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
        headers=missing; apt-cache show "linux-headers-$kernel" >/dev/null 2>&1 && headers=offered
    fi
    echo "$kernel $image $headers ${module:--}"
done
block boot
if [ "$gpu" ]; then
    has grubby && echo "grubby $(grubby --default-kernel 2>/dev/null)"
    has grub-editenv && grub-editenv list 2>/dev/null | grep -E '^(saved|next)_entry=' | tr '=' ' '
    for menu in /boot/grub/grub.cfg /boot/grub2/grub.cfg; do
        grep -E '^[[:space:]]*(set default=|submenu |menuentry |linux(16|efi)?[[:space:]])' "$menu" 2>/dev/null |
            cut -c 1-250 | sed 's/^/grub /'
    done
    for link in /boot/vmlinuz /vmlinuz; do
        if [ -L "$link" ]; then echo "link $(readlink -f "$link")"; break; fi
    done
fi
block driver_notes
if [ "$gpu" ]; then
    owned() {
        if has dpkg; then grep -qxF "$1" /var/lib/dpkg/info/*.list 2>/dev/null || dpkg -S "$1" >/dev/null 2>&1
        else rpm -qf "$1" >/dev/null 2>&1; fi
    }
    borrowed=$(grep -o -m 1 -E ' /[^ ]*(libcuda\.so|libnvidia-ml\.so|/nvidia-smi)[^ ]*' /proc/self/mountinfo 2>/dev/null)
    echo "borrowed $borrowed"
    if [ -z "$borrowed" ]; then
        for file in /usr/bin/nvidia-uninstall /usr/lib/*/libcuda.so.[0-9]*.* /usr/lib64/libcuda.so.[0-9]*.* \
            /usr/lib/libcuda.so.[0-9]*.*; do
            if [ -e "$file" ] && ! owned "$file"; then echo "unowned $file"; break; fi
        done
    fi
    case $(mokutil --sb-state 2>/dev/null) in *enabled*)
        key="none"
        for file in /var/lib/shim-signed/mok/MOK.der /var/lib/dkms/mok.pub; do
            if [ -e "$file" ]; then key="$(mokutil --test-key "$file" 2>&1 | head -n 1)"; break; fi
        done
        echo "key $key" ;;
    esac
    has dpkg-query && echo "broken $(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 2>/dev/null |
        grep -E '^.[FUHWt]' | cut -c 4- | tr '\n' ' ')"
    echo "waiting $(cat /run/bringup/reboot-pending 2>/dev/null)"
    echo "rebooted $(cat /etc/bringup/driver/rebooted 2>/dev/null)"
    echo "rebooted_for $(tr '\n' ' ' 2>/dev/null </etc/bringup/driver/rebooted-for)"
    echo "reset $(tr '\n' ' ' 2>/dev/null </run/bringup/gpu-reset)"
    echo "added $(tr '\n' ' ' 2>/dev/null </etc/bringup/driver/added)"
    echo "locks $(grep -hsE 'nvidia|datacenter|nvlsm|cuda-drivers|libnvsdm' /etc/dnf/plugins/versionlock.list | tr '\n' ' ')"
fi
block kernel_log
if [ "$gpu" ]; then
    { journalctl -k -b -q --no-pager -o cat 2>/dev/null || dmesg 2>/dev/null; } |
        grep -iE 'NVRM|nvidia|nouveau|lockdown|is rejected' | cut -c 1-200 | tail -n 60
fi
block listening
if has ss; then ss -Hltnp 2>/dev/null; else cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | sed 's/^/proc /'; fi
block gpu_holders
if [ -e /dev/nvidia0 ]; then
    find /proc/[0-9]*/fd -lname '/dev/nvidia[0-9]*' -printf '%h\n' 2>/dev/null | cut -d / -f 3 | sort -u |
        while read -r pid; do
            echo "$pid $(cat "/proc/$pid/comm" 2>/dev/null) $(tail -n 1 "/proc/$pid/cgroup" 2>/dev/null)"
        done
fi
block packages
if has dpkg-query; then dpkg-query -W -f '${Package} ${db:Status-Abbrev} ${Version}\n' @PACKAGES@ 2>/dev/null
elif has rpm; then rpm -q --qf '%{NAME} ii %{VERSION}-%{RELEASE}\n' @PACKAGES@ 2>/dev/null | grep ' ii '; fi
block user; getent passwd bringup
block paths
ours="/etc/modprobe.d/bringup-* /etc/modules-load.d/bringup-* /etc/nvidia-imex/nodes_config.cfg
    /etc/dracut.conf.d/*bringup-* /etc/apt/*.d/*bringup-* /etc/yum.repos.d/bringup-*
    /etc/systemd/system/nvidia-*.service.d/bringup.conf"
find $ours /etc/bringup /etc/systemd/system/vllm-*.service /etc/systemd/system/ollama-*.service /opt/bringup/bin \
    /etc/systemd/system/bringup-gateway.service /var/cache/bringup/gateway \
    /etc/systemd/system/bringup-bundle-server.service -maxdepth 0 -printf '%m %u:%g %y %p\n' 2>/dev/null
# a directory may be a link to a larger disk
find -H /opt/bringup /opt/bringup/downloads /opt/bringup/ollama /srv/models "$ollama" /var/lib/bringup \
    /var/cache/bringup /var/cache/bringup/pycache -maxdepth 0 -printf '%m %u:%g %y %p\n' 2>/dev/null
find /etc/bringup /opt/bringup/bin -mindepth 1 -printf '%m %u:%g %y %p\n' 2>/dev/null
block hashes
{ find /etc/bringup /opt/bringup/bin -type f 2>/dev/null
  ls -d $ours /etc/systemd/system/vllm-*.service /etc/systemd/system/ollama-*.service \
      /etc/systemd/system/bringup-gateway.service /etc/systemd/system/bringup-bundle-server.service 2>/dev/null
} | while read -r path; do sha256sum "$path"; done
block units
if [ -d /run/systemd/system ]; then
    names=$(cd /etc/systemd/system && ls -d vllm-*.service ollama-*.service 2>/dev/null)
    [ "$gpu" ] && names="$names $(cd /usr/lib/systemd/system 2>/dev/null &&
        ls -d nvidia-persistenced.service nvidia-fabricmanager.service nvidia-imex.service 2>/dev/null)"
    tasks=$(systemctl list-units --all --plain --no-legend 'bringup-*.service' | cut -d ' ' -f 1)
    [ -n "$(echo $names$tasks)" ] && systemctl show $names $tasks \
        --property=Id,ActiveState,SubState,UnitFileState,Result,MainPID,NRestarts,NeedDaemonReload
fi
block unit_ports
for unit in /etc/systemd/system/vllm-*.service /etc/systemd/system/ollama-*.service; do
    sed -nE "s/.*(--port |OLLAMA_HOST=[^ ]*:)([0-9]+).*/\2 ${unit##*/}/p" "$unit" 2>/dev/null
done
block environments
for prefix in /opt/bringup/conda /opt/bringup/conda/envs/*; do
    [ -e "$prefix/@COMPLETE@" ] || continue
    # the host went down in the middle: there may be names of files whose bytes were never written
    [ ! -e "$prefix/@AT_WORK@" ] || [ "$(cat "$prefix/@AT_WORK@")" = "$(cat /proc/sys/kernel/random/boot_id)" ] || continue
    echo "prefix $prefix"
    for record in "$prefix"/conda-meta/*.json; do echo "conda ${record##*/}"; done
    for record in "$prefix"/lib/python3*/site-packages/*.dist-info; do echo "dist ${record##*/}"; done
done
block checks
for result in /etc/bringup/environments/*/torch-*.json; do
    if [ -f "$result" ]; then printf '%s ' "$result"; tr -d '\n' <"$result"; echo; fi
done
block burn_in; cat /etc/bringup/burn-in.json 2>/dev/null
block model_parts
for directory in /srv/models/*/*/.*.part; do
    if [ -d "$directory" ] && [ ! -L "$directory" ]; then du -sk "$directory" 2>/dev/null; fi
done
block models
find -H /srv/models -mindepth 3 -maxdepth 4 -name .bringup.json 2>/dev/null | while read -r manifest; do
    directory=${manifest%/*}
    echo "directory $directory"; printf 'manifest '; tr -d '\n' <"$manifest"; echo
    find "$directory" -type f -printf 'file %s %T@ %P\n'
done
block model_pins; cat /etc/bringup/model-pins.json 2>/dev/null
block model_facts; cat /etc/bringup/model-facts.json 2>/dev/null
block ollama
for directory in /opt/bringup/ollama/[0-9]*; do
    [ -d "$directory" ] || continue
    # what is being unpacked, or is left of a removal that was cut
    kind=torn
    case $directory in *.part) ;; *) [ -x "$directory/bin/ollama" ] && kind=version ;; esac
    echo "$kind ${directory##*/}"
done
echo "store $ollama"
tail -n +2 "$ollama_stores" 2>/dev/null | while read -r old; do if [ -d "$old/blobs" ]; then echo "old_store $old"; fi; done
for store in "$ollama/manifests" "$ollama/manifests-v2"; do
    # newer manifests are links to files of the store
    find -L "$store" -type f 2>/dev/null | while read -r manifest; do
        printf 'manifest %s ' "${manifest#"$store"/}"; tr -d '\n' <"$manifest"; echo
    done
done
for record in "$ollama"/created/*; do if [ -f "$record" ]; then echo "created $(cat "$record")"; fi; done
find "$ollama/blobs" -type f -printf 'blob %s %f %b\n' 2>/dev/null
block rotational; cat /sys/block/*/queue/rotational 2>/dev/null | sort -u
block gateway
if getent passwd bringup-gateway >/dev/null; then echo user; fi
if [ -x /usr/sbin/nginx ]; then
    echo nginx; case $(/usr/sbin/nginx -V 2>&1) in *http_secure_link_module*) echo secure_link ;; esac
fi
sed -n 's/^ *listen .*:\([0-9]*\).*;$/port \1/p' /etc/bringup/gateway/nginx.conf 2>/dev/null
sed -n 's#^ *include /run/bringup/front/\(.*\)\.con\[f\];$#switch \1#p' /etc/bringup/gateway/nginx.conf 2>/dev/null
if [ -e /run/bringup/front-unloaded ]; then echo unloaded; fi
certificate=/etc/bringup/gateway/own-certificate.pem
if [ -f "$certificate" ]; then
    sed 's/^/certificate /' "$certificate"; sed 's/^/name /' /etc/bringup/gateway/own-names 2>/dev/null
    openssl x509 -in "$certificate" -noout -checkend 2592000 >/dev/null 2>&1 || echo ends_soon
fi
block stamp; sed -n 's/^ "time": "\(.*\)",*$/\1/p' /etc/bringup/plan.json 2>/dev/null
block state; cat /etc/bringup/state 2>/dev/null
block end
}
probe | valid
# iconv says by its exit that there was something to leave out
true
