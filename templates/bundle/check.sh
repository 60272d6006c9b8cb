# Checks what a host takes from a bundle, by the bundle's index and by the lock, before anything is installed.
#
#     check.sh DIRECTORY WANTED [URL]
# WANTED is "all", or a file with a line per file: its name, and the hashes that it may have, or =PATH. With a URL the files are
# brought into the directory first; a file that is there and right is not brought again.
set -eu
directory=$1 wanted=$2 url=${3:-}
index=SHA256SUMS
todo=/run/bringup/bundle-todo

{% include "shell/fetch.sh" %}

say() { echo "bundle: $*"; }
get() {
    if command -v curl >/dev/null; then
        fetch "$1" "$2"
    else
        /usr/lib/apt/apt-helper -o Acquire::Retries=5 -o APT::Sandbox::User=root download-file "$1" "$2" >/dev/null
    fi
}
# a URL's path, for the few signs that file names have
quoted() { printf '%s' "$1" | sed 's/%/%25/g; s/ /%20/g; s/+/%2B/g; s/#/%23/g; s/?/%3F/g'; }
bring() { get "$url/$(quoted "$path")" "$path.part" || { say "$url/$path cannot be had."; exit 1; }; }
is_right() { [ "$(sha256sum <"$2" | cut -c 1-64)" = "$1" ]; }

if [ "$url" ]; then
    mkdir -p "$directory"
    rm -f "$directory/$index"
    get "$url/$index" "$directory/$index" || { say "$url has no $index. Make it with 'python -m plan bundle'."; exit 1; }
fi
cd "$directory" 2>/dev/null || { say "there is no directory $directory. Mount it, or correct sources.bundle."; exit 1; }
[ -f "$index" ] || { say "$directory has no $index. Make it with 'python -m plan bundle'."; exit 1; }

# who serves the whole of it has no rights of its own
if [ "$wanted" = all ]; then
    hidden=$(setpriv --reuid=65534 --regid=65534 --clear-groups \
        sh -c 'cd "$1" && find . ! -readable -print -quit' sh "$directory" 2>&1 | head -n 1)
    if [ "$hidden" ]; then
        say "$directory cannot be read by the server that is to serve it ($hidden). Let others read it, and all above it."
        exit 1
    fi
fi

mkdir -p /run/bringup
if [ "$wanted" = all ]; then cp "$index" "$todo.new"; else awk '
    NR == FNR { hash = substr($0, 1, 64); path = substr($0, 67); paths[hash] = paths[hash] hash "  " path "\n"
                line[path] = hash "  " path "\n"; next }
    {
        found = 0
        for (i = 2; i <= NF; i++) {
            if (substr($i, 1, 1) == "=" && substr($i, 2) in line) { printf "%s", line[substr($i, 2)]; found = 1 }
            else if ($i in paths) { printf "%s", paths[$i]; found = 1 }
        }
        if (!found) { print $1 >lacking }
    }' lacking="$todo.lacking" "$index" "$wanted" >"$todo.new"
fi
if [ -s "$todo.lacking" ]; then
    say "lacks $(head -n 3 "$todo.lacking" | tr '\n' ' ')($(wc -l <"$todo.lacking") files) of the lock. Make it anew."
    rm -f "$todo".*
    exit 1
fi
LC_ALL=C sort -u "$todo.new" >"$todo"
rm -f "$todo.new"

# a bare host has no curl, and apt's program takes longer to start than most files to come
many() { /usr/lib/apt/apt-helper -o Acquire::Retries=5 -o APT::Sandbox::User=root download-file "$@" >/dev/null || true; }
total=$(wc -l <"$todo") number=0
if [ "$url" ] && ! command -v curl >/dev/null; then
    set --
    while read -r hash path; do
        number=$((number + 1))
        [ ! -f "$path" ] || continue
        mkdir -p "$(dirname "$path")"
        set -- "$@" "$url/$(quoted "$path")" "$path"
        if [ $# -ge 80 ]; then echo "bringing $number of $total: $path"; many "$@"; set --; fi
    done <"$todo"
    [ $# -eq 0 ] || many "$@"
fi

number=0
while read -r hash path; do
    number=$((number + 1))
    echo "checking $number of $total: $path"
    if [ "$url" ] && ! { [ -f "$path" ] && is_right "$hash" "$path"; }; then
        mkdir -p "$(dirname "$path")"
        begun=
        if [ -f "$path.part" ]; then begun=yes; fi
        bring
        # what an earlier run left may have been the beginning of another file
        if [ "$begun" ] && ! is_right "$hash" "$path.part"; then rm -f "$path.part"; bring; fi
        mv -f "$path.part" "$path"
    fi
    if ! [ -f "$path" ]; then say "$directory/$path is missing. Make the bundle anew."; exit 1; fi
    if ! is_right "$hash" "$path"; then
        if [ "$url" ]; then rm -f "$path"; where=$url; else where=$directory; fi
        say "$where/$path is damaged: it has other bytes than its index says. Nothing was changed. Make it anew."
        exit 1
    fi
done <"$todo"

# apt and dnf believe their index: that may name nothing but what the lock has
[ "$wanted" = all ] || grep -E '/(Packages|repodata/(primary|repomd).xml)$' "$todo" | while read -r hash path; do
    case $path in
    */Packages) sed -n 's/^SHA256: //p' "$path" ;;
    */primary.xml) sed -n 's/.*<checksum type="sha256" pkgid="YES">\([^<]*\)<.*/\1/p' "$path" ;;
    *) sed -n 's/.*<location .*href="\([^"]*\)".*/\1/p' "$path" | grep -vE '^repodata/(primary|filelists).xml$' || true ;;
    esac | while read -r listed; do
        grep -q "^packages/[^ ]* $listed\$" "$wanted" || {
            say "$path names a package that the lock has not ($listed). Make the bundle anew."
            exit 1
        }
    done || exit 1
done
echo "$total files of the bundle, all verified"
