# --- what runs

# Units of ours, and of the driver's own, that keep the GPUs busy; those that ran are started again.
users="$(cd /etc/systemd/system && ls -d vllm-*.service ollama-*.service 2>/dev/null || true)"
beside_units='nvidia-dcgm.service nvidia-fabricmanager.service nvidia-imex.service nvidia-persistenced.service'
# The first process, of what has a GPU open, that goes with none of these units.
stranger() {
    find /proc/[0-9]*/fd -lname '/dev/nvidia[0-9]*' -printf '%h\n' 2>/dev/null | sed 's,/fd$,,; s,.*/,,' | sort -u |
        while read -r process; do
            for unit in $users $beside_units; do
                if grep -qF "/$unit" "/proc/$process/cgroup" 2>/dev/null; then continue 2; fi
            done
            # one that looked and is gone holds nothing
            [ ! -e "/proc/$process" ] || echo "$process"
        done | head -n 1
}
# stop_users [UNIT...]: beside the services of ours these units, or all that use the driver
stop_users() {
    holder=$(stranger)
    if [ "$holder" ]; then
        # what a run that was cut has stopped
        start_users
        fail "$(cat "/proc/$holder/comm" 2>/dev/null) (pid $holder) uses the GPUs and is none of ours. Stop it, run again."
    fi
    running=$(cat "$state/stopped" 2>/dev/null || true)
    for unit in ${*:-$beside_units} $users; do
        case $(systemctl is-active "$unit" 2>/dev/null) in active|activating|reloading) running="$running $unit" ;; esac
    done
    echo $running >"$state/stopped"
    for unit in $users ${*:-$beside_units}; do systemctl stop "$unit" 2>/dev/null || true; done
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
settle() {
    if [ -e "$state/rebooted" ] && ! runs; then
        words=$(kernel_says)
        [ ! -s "$state/previous" ] || give_up "${words:-$(tail -n 1 "$said")}"
        exit 1
    fi
    healed
}
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
    start_units || return 1
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
    rm -f "$waiting" "$state/previous" "$state/rebooted" "$state/failed"
    say "release $release runs on $shown GPUs."
}
# what the fabric manager looks for before it starts
modules() { for name in $to_load; do modprobe "$name" || true; done; }
start_units() {
    systemctl daemon-reload
    for unit in $units; do
        systemctl --quiet enable "$unit" 2>/dev/null || continue
        [ "$unit" != nvidia-fabricmanager.service ] || modules
        systemctl restart "$unit" ||
            { say "$unit does not start: $(journalctl -q --no-pager -o cat -n 1 -u "$unit")"; return 1; }
    done
}
# before_reboot [GPU...]: what a reboot would cut is stopped first; a second one for the same release, or for the
# sake of the same GPUs, would help as little.
before_reboot() {
    stop_users
    boot=$(cat /proc/sys/kernel/random/boot_id)
    if [ $# -eq 0 ]; then echo "$boot $(installed_release)" >"$state/rebooted"
    else for gpu in "$@"; do echo "$boot $gpu"; done >>"$state/rebooted-for"; fi
    # what was stopped is enabled, and starts with the boot
    rm -f "$state/stopped"
}
start() {
    case " $kernels " in *" $(uname -r) "*) ;; *) wait_for_reboot "kernel $(uname -r) has no module of it" ;; esac
    stop_users
    if load && runs; then start_users; return; fi
    words=$(kernel_says)
    [ -s "$state/previous" ] && give_up "${words:-$(tail -n 1 "$said")}"
    start_users
    [ "$(loaded_release)" != "$(installed_release)" ] || fail "the driver does not run as it shall. Mend that and run again."
    fail "the module does not load: ${words:-$(tail -n 1 "$said")}. Mend that and run again."
}
