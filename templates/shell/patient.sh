# A host that has just booted updates its own packages; of that apt itself waits for the installation alone.
patient() {
    for pause in $(seq 60) last; do
        told=$(LC_ALL=C "$@" 2>&1) && break
        case $told in
        *"locked by"* | *"get lock"* | *"lock directory"*) [ "$pause" != last ] || return 1 ;;
        *) echo "$told"; return 1 ;;
        esac
        echo "waiting for another installation to end"
        sleep 10
    done
}
