# Brings Ollama's store to what it shall hold, through a server of its own that ends with it.
#
#     ollama-models OLLAMA [remove TAG | pull TAG PATH LAYERS | take TAG PATH MANIFEST URL |
#                           create TAG MODELFILE DIGEST | forget TAG]...
#
# $OLLAMA_HOST and $OLLAMA_MODELS say where that server listens and where the store is. A pull that was cut
# goes on where it stopped. PATH is registry/namespace/model/tag, and LAYERS one sha256 of the digests that the
# lock has of it, or "any". What is taken from a bundle lies at URL as in a store, MANIFEST is the sha256 of its
# manifest, which comes last; a cut copy goes on too. Of which Modelfile a model was made is written down once it
# is made, and forgotten once something else has its name.
set -u
ollama=$1; shift
url=http://$OLLAMA_HOST

"$ollama" serve &
server=$!
trap 'kill "$server" "${progress:-$server}" 2>/dev/null; wait' EXIT

{% include "shell/fetch.sh" %}

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
# One sha256 of the digests in a manifest.
layers_of() { digests | sha256sum | cut -c 1-64; }
digests() { grep -oE '"digest": *"sha256:[0-9a-f]{64}"' | grep -oE 'sha256:[0-9a-f]{64}' | sort -u; }
other() {
    fail "$1: $2 other layers than the lock. Run 'python -m plan lock --upgrade $1', or name one that has them"
}
# What the registry has under the name now, before it is pulled. Where it says nothing, what came is looked at.
asked() { # TAG PATH LAYERS
    rest=${2#*/}; where=${rest%/*}
    manifest=$(curl --silent --fail --location --max-time 30 --header "Accept: $accept" \
        "https://${2%%/*}/v2/$where/manifests/${2##*/}") || return 0
    [ "$(printf '%s' "$manifest" | layers_of)" = "$3" ] || other "$1" "its registry has"
}
came() { # TAG PATH LAYERS
    file=$(find "$OLLAMA_MODELS"/manifests* -type f -ipath "*/$2" | head -n 1)
    [ "$(cat "${file:-/dev/null}" | layers_of)" != "$3" ] || return 0
    request DELETE /api/delete "$1" >/dev/null
    other "$1" "what was pulled has"
}
is_right() { [ -f "$2" ] && [ "$(sha256sum <"$2" | cut -c 1-64)" = "$1" ]; }
# Brings a file of the bundle to the store. It has its name there once its bytes are right.
bring() { # SHA256 URL FILE
    ! is_right "$1" "$3" || return 0
    if ! is_right "$1" "$3.part"; then
        reply=$(fetch "$2" "$3.part" --noproxy '*' 2>&1) ||
            fail "$2 cannot be brought to $OLLAMA_MODELS ($(echo "$reply" | tail -n 1)). Let others read the" \
                "bundle, or make room, or make the bundle anew"
    fi
    is_right "$1" "$3.part" || { rm -f "$3.part"; fail "$2 has other bytes than the lock. Make the bundle anew"; }
    mv -f "$3.part" "$3"
}
take() { # PATH MANIFEST URL
    manifest=$OLLAMA_MODELS/blobs/manifest-$2
    mkdir -p "$OLLAMA_MODELS/blobs" "$OLLAMA_MODELS/manifests/${1%/*}"
    bring "$2" "$3/manifests/$1" "$manifest"
    for layer in $(digests <"$manifest"); do
        bring "${layer#sha256:}" "$3/blobs/sha256-${layer#sha256:}" "$OLLAMA_MODELS/blobs/sha256-${layer#sha256:}"
    done
    sync -f "$OLLAMA_MODELS"
    mv -f "$manifest" "$OLLAMA_MODELS/manifests/$1"
    # where newer releases look first
    rm -f "$OLLAMA_MODELS/manifests-v2/$1" "$OLLAMA_MODELS/manifests-v2/ollama.com/${1#registry.ollama.ai/}"
}
accept=application/vnd.docker.distribution.manifest.v2+json
fail() { echo "error: $*"; exit 1; }
record_of() { echo "$OLLAMA_MODELS/created/$(echo "$1" | sha256sum | cut -c 1-12)"; } # TAG

until curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null "$url/api/version"; do
    kill -0 "$server" 2>/dev/null || fail "Ollama ended instead of listening on $OLLAMA_HOST"
    sleep 0.2
done

while [ $# -gt 1 ]; do
    case $1 in
    pull)
        [ "$4" = any ] || asked "$2" "$3" "$4"
        echo "pulling $2"
        tell_progress "$2" & progress=$!
        reply=$(request POST /api/pull "$2")
        kill "$progress"; progress=
        case $reply in *'"status":"success"'*) ;; *) fail "$2 cannot be pulled: $reply$(advice "$reply")" ;; esac
        [ "$4" = any ] || came "$2" "$3" "$4"
        shift 2
        ;;
    take)
        echo "taking $2 from the bundle"
        tell_progress "$2" & progress=$!
        take "$3" "$4" "$5"
        kill "$progress"; progress=
        shift 3
        ;;
    remove)
        reply=$(request DELETE /api/delete "$2")
        case $reply in *200 | *404) ;; *) fail "$2 cannot be removed: $reply" ;; esac
        ;;
    create)
        echo "creating $2"
        reply=$("$ollama" create "$2" -f "$3" 2>&1) || fail "$2 cannot be created: $(echo "$reply" | tail -n 3)"
        mkdir -p "$OLLAMA_MODELS/created"
        record=$(record_of "$2")
        echo "$2 $4" >"$record.new"; mv "$record.new" "$record"
        shift 2
        ;;
    forget)
        rm -f "$(record_of "$2")"
        ;;
    esac
    shift 2
done

# a server that may only read the store cannot make them
mkdir -p "$OLLAMA_MODELS/manifests" "$OLLAMA_MODELS/manifests-v2" "$OLLAMA_MODELS/blobs"
