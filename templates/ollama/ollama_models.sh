# Brings Ollama's store to what it shall hold, through a server of its own that ends with it.
#
#     ollama-models OLLAMA [remove TAG | pull TAG | create TAG MODELFILE DIGEST]...
#
# $OLLAMA_HOST and $OLLAMA_MODELS say where that server listens and where the store is. A pull that was cut
# goes on where it stopped. Of which Modelfile a model was made is written down once it is made.
set -u
ollama=$1; shift
url=http://$OLLAMA_HOST

"$ollama" serve &
server=$!
trap 'kill "$server" "${progress:-$server}" 2>/dev/null; wait' EXIT

request() { # METHOD PATH TAG
    curl --silent --show-error --noproxy '*' --request "$1" --header 'Content-Type: application/json' \
        --data "{\"model\":\"$3\",\"stream\":false}" --write-out '\n%{http_code}' "$url$2" 2>&1
}
tell_progress() { # TAG
    while sleep 5; do echo "$1: the store has $(du -sm "$OLLAMA_MODELS" 2>/dev/null | cut -f 1) MiB"; done
}
advice() { # REPLY
    case $1 in
    *"newer version of Ollama"*) echo " - set sources.ollama_version to a newer one" ;;
    *"no space left"*) echo " - make room, or set ollama.store to a directory on another disk" ;;
    *"file does not exist"*) echo " - its registry has no such tag: correct the model's name" ;;
    *"i/o timeout"* | *"connection refused"* | *"no such host"*) echo " - behind a proxy set ollama.https_proxy" ;;
    esac
}
fail() { echo "error: $*"; exit 1; }

until curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null "$url/api/version"; do
    kill -0 "$server" 2>/dev/null || fail "Ollama ended instead of listening on $OLLAMA_HOST"
    sleep 0.2
done

while [ $# -gt 1 ]; do
    case $1 in
    pull)
        echo "pulling $2"
        tell_progress "$2" & progress=$!
        reply=$(request POST /api/pull "$2")
        kill "$progress"; progress=
        case $reply in *'"status":"success"'*) ;; *) fail "$2 cannot be pulled: $reply$(advice "$reply")" ;; esac
        ;;
    remove)
        reply=$(request DELETE /api/delete "$2")
        case $reply in *200 | *404) ;; *) fail "$2 cannot be removed: $reply" ;; esac
        ;;
    create)
        echo "creating $2"
        reply=$("$ollama" create "$2" -f "$3" 2>&1) || fail "$2 cannot be created: $(echo "$reply" | tail -n 3)"
        mkdir -p "$OLLAMA_MODELS/created"
        record=$OLLAMA_MODELS/created/$(echo "$2" | sha256sum | cut -c 1-12)
        echo "$2 $4" >"$record.new"; mv "$record.new" "$record"
        shift 2
        ;;
    esac
    shift 2
done

# a server that may only read the store cannot make them
mkdir -p "$OLLAMA_MODELS/manifests" "$OLLAMA_MODELS/manifests-v2" "$OLLAMA_MODELS/blobs"
