# fetch URL FILE [OPTION OF CURL]...
# Brings a file, from where FILE stops: after a cut, and where an earlier run left it. Whether it is the right one is
# for the caller to see. With options of curl 7.52 alone: the oldest systems have that.
fetch() {
    fetch_url=$1 fetch_file=$2; shift 2
    for fetch_pause in 1 2 4 8 0; do
        fetch_status=$(curl --fail --silent --show-error --location --connect-timeout 20 --speed-limit 1000 \
            --speed-time 60 --continue-at - --write-out '%{http_code}' --output "$fetch_file" "$@" "$fetch_url") && return
        fetch_code=$?
        case $fetch_code-$fetch_status in
        # the server gives no ranges, or not this one: it is asked for the whole file
        33-* | 36-* | *-416) rm -f "$fetch_file" ;;
        22-408 | 22-429) ;;
        # it has no such file, its certificate is not right, the disk is full: asking again does not help
        22-4* | 37-* | 60-* | 23-*) return "$fetch_code" ;;
        esac
        sleep "$fetch_pause"
    done
    return "$fetch_code"
}
