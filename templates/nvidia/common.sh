# --- what every program of the driver uses

# on the error output: a sentence must not end in a value that a function gives back
say() { echo "driver: $*" >&2; }
# Under systemd, words of a process that is gone at once lose their place in the journal.
fail() { say "$@"; [ -z "${INVOCATION_ID:-}" ] || sleep 1; exit 1; }
# The output of a package manager is kept for the one sentence that it is worth when it fails.
quietly() { "$@" >"$said" 2>&1; }
release_of_each() { grep -oE '[0-9]{3}\.[0-9]{2,3}(\.[0-9]{2})?'; }
release_of() { release_of_each | head -n 1; }
# the one that is built; where none is, the first, which has the module with it
main_package() {
    for name in $packages; do case $name in *dkms*) echo "$name"; return ;; esac; done
    echo "${packages%% *}"
}
apt() {
    apt-get --quiet --assume-yes --no-install-recommends --allow-change-held-packages --allow-downgrades \
        -o DPkg::Lock::Timeout=600 $apt_options "$@"
}
