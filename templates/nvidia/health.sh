# --- GPUs that ail

# `mend mig=NAME NAME...`: a GPU can be reset while nothing uses it. The fabric manager stays: NVSwitch boards of
# Ampere are reset with its help (manual page of nvidia-smi, --gpu-reset).
mend() {
    stop_users nvidia-dcgm.service nvidia-imex.service nvidia-persistenced.service
    failed=
    for word in "$@"; do
        gpu=${word#mig=}
        case $word in mig=*) make_whole "$gpu" ;; *) reset_gpu "$gpu" ;; esac || failed="$failed$gpu ($(refusal)) "
    done
    systemctl daemon-reload
    for unit in $units; do systemctl start "$unit" || true; done
    if [ "$failed" ] && [ "$reboot" = allowed ]; then wait_for_reboot "these GPUs could not be reset: ${failed% }"; fi
    start_users
    [ -z "$failed" ] ||
        fail "these GPUs could not be reset: ${failed% }. Reboot the host, or set driver.reboot to allowed, and run again."
}
# nvidia-smi names the GPU and the reason in a line of their own
refusal() { { grep -m 1 -E '^ *GPU [^ ]*: |nable|upported|ermission' "$said" || tail -n 1 "$said"; } | sed 's/^ *//; s/[. ]*$//'; }
reset_gpu() {
    # written down before it is tried: a reset that takes the host with it is not tried again in this boot
    echo "$1" >>/run/bringup/gpu-reset
    quietly nvidia-smi --gpu-reset -i "$1" || return 1
    address=$(nvidia-smi -i "$1" --query-gpu=pci.bus_id --format=csv,noheader 2>/dev/null | tr 'A-F' 'a-f')
    # what the kernel logged of it until now is settled
    # what stands before the colon is lost in the journal, which is searched for this name
    { echo "bringup: bringup has reset GPU $address of nvidia" >/dev/kmsg; } 2>/dev/null || true
    say "GPU ${address:-$1} is reset."
}
make_whole() {
    # instances go before the mode does; there may be none
    nvidia-smi mig -i "$1" -dci >/dev/null 2>&1 || true
    nvidia-smi mig -i "$1" -dgi >/dev/null 2>&1 || true
    quietly nvidia-smi -i "$1" -mig 0 || return 1
    # Ampere takes the mode with its next reset
    [ "$(nvidia-smi -i "$1" --query-gpu=mig.mode.current --format=csv,noheader 2>/dev/null)" != Enabled ] || reset_gpu "$1"
}
ails() {
    quietly nvidia-smi -q -x -i "$1" || return 0
    grep -qE '<(remapped_row_pending|pending_(retirement|blacklist)|(channel|tpc)_repair_pending|reset_required)>Yes<' "$said" && return 0
    action=$(sed -n 's/.*<gpu_recovery_action>\(.*\)<.*/\1/p' "$said")
    case $action in ''|None|N/A) return 1 ;; esac
}
# forget NOTE...: notes of reboots that have helped: "driver", or a GPU's name
forget() {
    for note in "$@"; do
        case $note in driver) rm -f "$state/rebooted" ;; *) sed -i "/ $note\$/d" "$state/rebooted-for" ;; esac
    done
}
# After a reboot for the sake of GPUs: what it did not help is written down, and not rebooted for again.
healed() {
    [ -s "$state/rebooted-for" ] || return 0
    left=$(while read -r _ gpu; do ! ails "$gpu" || echo "$gpu"; done <"$state/rebooted-for" | sort -u | tr '\n' ' ')
    if [ "$left" ]; then fail "the reboot did not help these GPUs: ${left% }. Have the cards looked at."; fi
    rm -f "$state/rebooted-for"
}
