# --- which packages, at which versions

# apt's plan, made before anything is changed; what it cannot resolve becomes a sentence.
apt_resolve() {
    apt --dry-run install "$@" >"$said" 2>&1 && return
    missing=$(sed -n 's/^E: Unable to locate package //p; s/^E: Package .\(.*\). has no installation candidate/\1/p' \
        "$said" | tr '\n' ' ')
    unmet=$(sed -n '/unmet dependencies/,/^E:/p' "$said" | sed '1d; /^E:/d' | tr -s ' \n' ' ' |
        sed 's/^ //; s/ $//; s/ : Depends: / needs /; s/ Depends: / and /g; s/but it is not \(going to be installed\|installable\)//g')
    rest=$(sed -n 's/^E: //p' "$said" | tail -n 1)
    if [ "$missing" ]; then problem="the package sources have no ${missing% }"
    elif [ "$unmet" ]; then problem="the package sources have not what it depends on: $unmet"
    else problem="apt refuses: $rest"; fi
    fail "$modules modules of branch $branch cannot be installed, $problem. $otherwise"
}
# "name=version" of a package at the very release of the driver.
apt_exact() {
    offered=$(apt-cache $apt_options madison "$1" | cut -d '|' -f 2 | tr -d ' ')
    if held_at=$(locked "$1"); then
        echo "$offered" | grep -qxF "$held_at" || gone "$1" "$held_at"
        echo "$1=$held_at"
        return
    fi
    exact=$(echo "$offered" | grep -E "(^|:)$(quoted "$2")([^0-9.]|$)" | head -n 1)
    [ "$exact" ] || none_of "$1" "$2" "$offered"
    echo "$1=$exact"
}

# A package that is not offered at the release that it must have, with those that it is offered at.
none_of() {
    releases=$(echo "$3" | release_of_each | sort -Vu | tr '\n' ' ' | sed 's/ $//; s/ /, /g')
    fail "the package sources have no $1 of release $2${releases:+, only $releases}. $otherwise"
}
quoted() { echo "$1" | sed 's/\./\\./g'; }
# The version that the lock has of a package.
locked() { for pair in $versions; do case $pair in "$1="*) echo "${pair#*=}"; return ;; esac; done; return 1; }
gone() { fail "the package sources have no $1 $2 any more, which the lock has. $otherwise"; }
# What apt would install, held to the lock.
as_locked() {
    [ "$versions" ] || return 0
    sed -n 's/^Inst \([^ ]*\) \(\[[^]]*\] \)\{0,1\}(\([^ ]*\) .*/\1 \3/p' "$said" | while read -r name version; do
        held_at=$(locked "$name") || continue
        [ "$version" = "$held_at" ] || gone "$name" "$held_at"
    done || exit 1
}
