"""Waits until a served model has answered a question. Run by systemd before a service counts as active.

    wait_until_ready.py URL MODEL TIMEOUT_SECONDS

/health alone proves nothing: a server whose weights are damaged is healthy and answers with nothing.
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request

PAUSE_SECONDS = 0.5
ANSWER_SECONDS = 300
GREETING = "你好"
# The request whose speed is told, as the checks of a fleet ask it.
QUESTION, TOKENS, PIECE_SECONDS = "服务正常吗？", 32, 20


def main(url: str, model: str, timeout_seconds: str) -> None:
    deadline = time.monotonic() + float(timeout_seconds)
    while not healthy(url):
        if server_has_ended():
            sys.exit(f"{model}: the server ended before it answered")
        if time.monotonic() > deadline:
            sys.exit(f"{url}/health did not answer within {timeout_seconds} s")
        time.sleep(PAUSE_SECONDS)
    text = answer(url, model)
    # damaged weights choose the first tokens of the vocabulary for ever, which are signs: "!!!!!!!!"
    if not any(sign.isalnum() for sign in text):
        sys.exit(f"{model} answered with nothing that can be read ({text[:40]!r}): its files may be damaged")
    print(f"{model} answers{speed(url, model)}", flush=True)


def server_has_ended() -> bool:
    """systemd waits for this program even when the process that it waits for is gone."""
    process = os.environ.get("MAINPID", "")
    if not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    return False


def healthy(url: str) -> bool:
    try:
        with open_without_proxy(urllib.request.Request(f"{url}/health"), 5) as response:
            return response.status == 200
    except OSError:
        return False


def answer(url: str, model: str) -> str:
    """One short greedy completion; a model without a chat template is asked for plain text."""
    question = {"model": model, "max_tokens": 8, "temperature": 0}
    messages = [{"role": "user", "content": GREETING}]
    try:
        reply = post(f"{url}/v1/chat/completions", question | {"messages": messages})
        message = reply["choices"][0]["message"]
        return "".join(message.get(part) or "" for part in ("content", "reasoning", "reasoning_content"))
    except urllib.error.HTTPError as error:
        words = error.read().decode(errors="replace")
        if error.code != 400 or "template" not in words:
            sys.exit(f"{url}: {error.code} to a chat completion: {words[:300]}")
    return post(f"{url}/v1/completions", question | {"prompt": GREETING})["choices"][0]["text"]


def speed(url: str, model: str) -> str:
    """How fast one streamed answer came; empty where it cannot be told, which is no reason not to serve."""
    body = {"model": model, "prompt": QUESTION, "max_tokens": TOKENS, "temperature": 0, "stream": True}
    try:
        started = time.monotonic()
        with open_without_proxy(request(f"{url}/v1/completions", body), PIECE_SECONDS) as response:
            times = [time.monotonic() - started for line in response if has_text(line)]
        rate = (len(times) - 1) / (times[-1] - times[0])
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, http.client.HTTPException):
        return ""
    return f": first token after {times[0] * 1000:.1f} ms, then {rate:.1f} tokens per second"


def has_text(line: bytes) -> bool:
    """Whether a line of the stream brings a piece of the answer."""
    if not line.startswith(b"data: {"):
        return False
    choices = json.loads(line[6:])["choices"]
    return bool(choices and choices[0]["text"])


def post(url: str, question: dict) -> dict:
    with open_without_proxy(request(url, question), ANSWER_SECONDS) as response:
        return json.load(response)


def request(url: str, question: dict) -> urllib.request.Request:
    return urllib.request.Request(url, json.dumps(question).encode(), {"Content-Type": "application/json"})


def open_without_proxy(request: urllib.request.Request, timeout: float):
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout)


if __name__ == "__main__":
    main(*sys.argv[1:])
