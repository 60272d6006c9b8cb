# Lets only the given addresses reach the two ports of an exchange, and takes that away again. Run by root.
#     firewall.sh up PORT FLAG ADDRESS...        firewall.sh down PORT FLAG
# FLAG is a file that says that the ports are guarded; without it nothing is exchanged.
set -eu
PATH=/usr/sbin:/sbin:/usr/bin:/bin
verb=$1 port=$2 flag=$3; shift 3
next=$((port + 1))
table=bringup_$port

down() {
    rm -f "$flag"
    if command -v nft >/dev/null; then nft delete table inet "$table" 2>/dev/null || true; fi
    if command -v iptables >/dev/null; then
        iptables -w -D INPUT -p tcp -m multiport --dports "$port,$next" -j "$table" 2>/dev/null || true
        iptables -w -F "$table" 2>/dev/null && iptables -w -X "$table" || true
    fi
}

down
if [ "$verb" = up ]; then
    if command -v nft >/dev/null; then
        peers=$(echo "$@" | sed 's/ /, /g')
        nft -f - <<RULES
table inet $table {
    chain input {
        type filter hook input priority -10; policy accept;
        tcp dport { $port, $next } ip saddr != { $peers } drop
        tcp dport { $port, $next } meta nfproto ipv6 drop
    }
}
RULES
    elif command -v iptables >/dev/null; then
        iptables -w -N "$table"
        for peer in "$@"; do iptables -w -A "$table" -s "$peer" -j ACCEPT; done
        iptables -w -A "$table" -j DROP
        iptables -w -I INPUT -p tcp -m multiport --dports "$port,$next" -j "$table"
    else
        echo "neither nft nor iptables is on this host" >&2
        exit 1
    fi
    mkdir -p "$(dirname "$flag")"
    : >"$flag"
fi
