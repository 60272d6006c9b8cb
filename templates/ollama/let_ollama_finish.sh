# Waits until a server has no answer under way. Run by systemd before Ollama is told to end, because it then
# cuts off what is running.
#
#     let-ollama-finish PORT SECONDS
#
# A connection is at work when its newest question is not older than the newest piece of an answer, or while
# pieces are being sent; one that a client only keeps open is not waited for. Without `ss` nothing is known of
# that, and no connection is waited for.
set -u
port=$1; deadline=$(($(date +%s) + $2))
command -v ss >/dev/null || exit 0

at_work() {
    ss --no-header --tcp --info --numeric --oneline state established "sport = :$port" 2>/dev/null |
        { count=0
          while read -r line; do
              sent=0 received=0  # milliseconds ago; ss leaves a zero out
              for word in $line; do
                  case $word in lastsnd:*) sent=${word#*:} ;; lastrcv:*) received=${word#*:} ;; esac
              done
              if [ "$received" -le "$sent" ] || [ "$sent" -lt 2000 ]; then count=$((count + 1)); fi
          done
          echo "$count"; }
}

while count=$(at_work); [ "$count" -gt 0 ]; do
    if [ "$(date +%s)" -ge "$deadline" ]; then echo "$count requests did not end in time: they are cut off"; break; fi
    [ "${told:-}" = "$count" ] || { echo "waiting for $count requests to end"; told=$count; }
    sleep 0.5
done
