#!/bin/sh
# Shows the GPUs that lie in ./now of this folder (`switch on`, at boot `switch boot`), or what is really there
# (`switch off`): binds ./now over the places of the kernel, and puts its programs first in the PATH.
cd "$(dirname "$0")" || exit 1
here=$(pwd)

cover() { # NAME PLACE: a place that this kernel does not have stays as it is
    if [ -e "now/$1" ] && [ -e "$2" ]; then mount --bind "now/$1" "$2"; fi
}
uncover() {
    while mountpoint -q "$1" 2>/dev/null; do umount "$1"; done
}
in_sys() { # a machine's /sys is read-only, and may lack folders that the kernel has
    mount -o remount,rw /sys && "$@"
    mount -o remount,ro /sys
}
on() {
    [ -e /sys/module ] || in_sys mkdir /sys/module
    cover module /sys/module
    cover pci /sys/bus/pci/devices
    cover driver /proc/driver
    cover modules /proc/modules
    for program in now/bin/*; do
        if [ -e "$program" ]; then ln -sf "$here/$program" /usr/local/bin/; fi
    done
}
off() {
    for place in /proc/modules /proc/driver /sys/bus/pci/devices /sys/module; do uncover $place; done
    [ -n "$(ls /sys/module)" ] || in_sys rmdir /sys/module
    for program in /usr/local/bin/*; do
        case $(readlink "$program") in "$here"/*) rm "$program" ;; esac
    done
}

case $1 in
on) on ;;
off) off ;;
boot)
    if [ -d next ]; then
        for program in now/bin/*; do rm -f "/usr/local/bin/${program##*/}"; done
        rm -rf now
        mv next now
    fi
    on
    ;;
esac
