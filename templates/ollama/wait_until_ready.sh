# Waits until a served model has answered a question. Run by systemd before a service counts as active.
#
#     wait-until-ollama-answers URL MODEL TIMEOUT_SECONDS
#
# A server without its model, or with damaged weights, is up and says its version: only an answer proves it.
set -u
url=$1; model=$2; deadline=$(($(date +%s) + $3))

until curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null "$url/api/version"; do
    if [ "$(date +%s)" -ge "$deadline" ]; then echo "$url/api/version did not answer within $3 s"; exit 1; fi
    # systemd waits for this program even when the process that it waits for is gone
    if [ -n "${MAINPID:-}" ] && ! kill -0 "$MAINPID"; then echo "$model: the server ended before it answered"; exit 1; fi
    sleep 0.5
done

left=$((deadline - $(date +%s)))
question='{"model":"'$model'","max_tokens":8,"temperature":0,"messages":[{"role":"user","content":"你好"}]}'
reply=$(curl --silent --show-error --noproxy '*' --max-time "$((left > 1 ? left : 1))" \
    --header 'Content-Type: application/json' --data "$question" "$url/v1/chat/completions" 2>&1)
# a thinking model may not have got beyond its thoughts
if printf '%s' "$reply" | grep -Eq '"(content|reasoning)": *"[^"]'; then
    echo "$model answers"
else
    echo "error: $model does not answer a chat completion: $(printf '%s' "$reply" | cut -c 1-300 | iconv -c -f UTF-8 -t UTF-8)"
    exit 1
fi
