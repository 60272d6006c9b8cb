#!/bin/sh
# What the package sources would give this host as its driver, as if nothing were installed. On its output:
#   release 580.95.05            the driver's
#   package libcuda1 580.95.05-1 each package that would come, the driver's and others
# and where each of these is, with its hash, as plan/apt_closure.py reads it.
# It changes nothing: its lists and its key lie in a directory under /tmp, which it removes.
set -eu
LC_ALL=C
export LC_ALL
{{ plan }}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/lists/partial" "$folder/archives/partial" "$folder/parts"
chown -R _apt "$folder/lists" "$folder/archives" 2>/dev/null || true
chmod 755 "$folder"
export TMPDIR="$folder"
said=$folder/said keyring=$folder/key.gpg apt_lists=$folder/parts
apt_options="-o Dir::State::Lists=$folder/lists -o Dir::Cache=$folder -o Dir::State::status=/dev/null"
apt_options="$apt_options -o Dir::Etc::SourceList=$folder/sources.list -o Dir::Etc::SourceParts=$folder/parts"
apt_options="$apt_options -o Dir::Etc::Preferences=$folder/preferences -o Dir::Etc::PreferencesParts=/dev/null"

{% include "nvidia/common.sh" %}

# a bare host need not have curl
fetch() {
    if command -v curl >/dev/null; then curl --fail --silent --location --max-time 60 --output "$2" "$1"
    else /usr/lib/apt/apt-helper download-file "$1" "$2" >/dev/null 2>&1; fi || fail "$1 cannot be fetched."
}

{% include "nvidia/sources.sh" %}

{% include "nvidia/choice.sh" %}

sources() {
    {% if mirror %}
    cat >"$folder/sources.list" <<'END'
{{ mirror }}
END
    {% else %}
    cp /etc/apt/sources.list "$folder/" 2>/dev/null || true
    for file in /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ ! -e "$file" ] || cp "$file" "$folder/parts/"
    done
    {% endif %}
    if [ "$source" = nvidia ] && ! grep -qsrF "$repository" "$folder/sources.list" "$folder/parts"; then
        apt_key
        echo "deb [signed-by=$keyring] $repository/ /" >"$folder/parts/bringup-nvidia.list"
    {% if not mirror %}
    elif [ "$source" = distribution ]; then
        apt_components
    {% endif %}
    fi
}
offers() {
    sources
    quietly apt update || fail "the package index cannot be read: $(sed -n 's/^E: //p' "$said" | head -n 1)"
    main=$(main_package)
    planned=$pinned
    [ "$planned" ] || planned=$(apt-cache $apt_options madison "$main" | cut -d '|' -f 2 | release_of_each |
        grep "^$branch\." | sort -Vr | head -n 1)
    [ "$planned" ] || fail "the package sources have no $main of branch $branch. $otherwise"
    printf 'Package: %s\nPin: version %s*\nPin-Priority: 1000\n' "$(echo "$held" | tr -d "'")" "$planned" \
        >"$folder/preferences"
    wanted=dkms
    for name in $packages $exact; do
        exactly=$(apt_exact "$name" "$planned") || exit 1
        wanted="$wanted $exactly"
    done
    for name in $optional $beside $headers; do
        if apt-cache $apt_options show "$name" >/dev/null 2>&1; then wanted="$wanted $name"; fi
    done
    apt_resolve $wanted
    echo "release $planned"
    sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/package \1 \2/p' "$said"
    sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1=\2/p' "$said" >"$folder/all"
    apt --print-uris install $wanted
    xargs apt-cache $apt_options show <"$folder/all" | grep -E '^(Filename|Size|SHA256):'
}
offers
