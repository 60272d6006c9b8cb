"""Which commit each model's revision is: asked once per run for the whole fleet.

The operator's machine asks; where it cannot reach a place of models, a host asks in its stead. When nobody
answers, a host that has the model keeps what it has.
"""

import hashlib
import re
import shlex
import sys
import threading
import time
from pathlib import Path

import httpx
from pyinfra import logger
from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host

from ops.remote import Remote
from plan import places, sources, web
from plan.errors import PlanError
from plan.models_host import Pin, Pins, installed_pin, wanted
from plan.places import COMMIT, Place
from plan.probe import Probe
from plan.probe_models import MANIFEST
from plan.sections import Settings
from plan.tokens import Tokens

TRIES, TIMEOUT_SECONDS = 3, 10.0
# What a proxy or an overloaded hub says for a while, and asking again may change.
PASSING = (408, 425, 429, 500, 502, 503, 504)
REFUSED = (401, 403)

# (place, model, revision) -> what was found, on the operator's machine and on hosts
_answers: dict[tuple[str, str, str, str], "Answer"] = {}
_asking = threading.Lock()


class Answer:
    """A commit, a definite no, or silence. `word` is a sentence's middle for the operator."""

    def __init__(self, commit: str | None = None, word: str = "", silent: bool = False) -> None:
        self.commit, self.word, self.silent = commit, word, silent


def pins_for(host: Host, settings: Settings, probe: Probe, tokens: Tokens, known: Pins | None = None) -> Pins:
    """The pin of every model that the host shall have; `--dry` can do without those that nobody names.

    `known`: those of the lock, for which nobody is asked.

    Raises:
        PlanError: a revision is nowhere, or nobody can be asked and the host lacks the model.
    """
    pins: dict[tuple[str, str], Pin] = dict(known or {})
    problems = []
    for model, revision in wanted(settings):
        if (model, revision) in pins:
            continue
        find = _of_commit if COMMIT.fullmatch(revision) else _pin
        try:
            pin = find(host, settings, probe, tokens, model, revision)
        except PlanError as error:
            problems += error.sentences
            continue
        if pin:
            pins[model, revision] = pin
    if problems:
        raise PlanError(problems)
    return pins


def _of_commit(
    host: Host, settings: Settings, probe: Probe, tokens: Tokens, model: str, commit: str
) -> Pin | None:
    """The pin of a revision that is a commit: a hub gets asked for its files, a directory has it or not."""
    places = sources.model_places(settings.sources)
    for place in places:
        if place.on_the_net:
            return Pin(commit, str(place))
        answer = _here(place, model, commit, tokens)
        if answer.silent:
            answer = _there(host, place, model, commit, Asking(tokens, settings), needs=True)
        if answer.commit == commit:
            return Pin(commit, str(place))
    if kept := installed_pin(model, commit, probe):
        return kept
    raise PlanError(
        [
            f"model {model}: commit {commit} is not in {', '.join(map(str, places))}: files without a "
            "manifest are of no commit. Leave `revision` out, or add a hub to sources.models."
        ]
    )


def _pin(
    host: Host, settings: Settings, probe: Probe, tokens: Tokens, model: str, revision: str
) -> Pin | None:
    noes, heard = [], False
    kept = installed_pin(model, revision, probe)
    for place in sources.model_places(settings.sources):
        answer = _here(place, model, revision, tokens)
        if answer.silent:
            answer = _there(host, place, model, revision, Asking(tokens, settings), needs=kept is None)
        if answer.commit:
            return Pin(answer.commit, str(place))
        noes.append(f"{place} {answer.word}")
        heard = heard or not answer.silent
        # a place that is down for a while must not move what is there to another place's commit
        if answer.silent and kept:
            logger.warning(f"{host.print_prefix}model {model}: {noes[-1]}; {kept.commit[:12]} is kept")
            return kept
    if not heard and "--dry" in sys.argv:
        logger.warning(f"{host.print_prefix}model {model}: {'; '.join(noes)}: which commit it is stays open")
        return None
    raise PlanError(
        [
            f"model {model}: revision {revision} is nowhere: {'; '.join(noes)}. "
            "Correct its name or sources.models."
        ]
    )


def _here(place: Place, model: str, revision: str, tokens: Tokens) -> Answer:
    """What a place says to this machine, asked once."""
    if place.kind == "host":
        return Answer(silent=True)
    key = ("", str(place), model, revision)
    with _asking:
        if key not in _answers:
            ask = _ask if place.on_the_net else _look
            _answers[key] = ask(place, model, revision, tokens)
        return _answers[key]


def _ask(place: Place, model: str, revision: str, tokens: Tokens) -> Answer:
    word = ""
    for attempt in range(TRIES):
        try:
            with web.client(timeout=TIMEOUT_SECONDS) as client:
                question = places.question(place, model, revision)
                response = client.get(question, headers=tokens.headers(place.kind))
        except (httpx.HTTPError, PlanError) as error:
            return Answer(word=f"cannot be reached ({str(error) or type(error).__name__})", silent=True)
        if response.status_code not in PASSING:
            return _judged(place, response.status_code, response.text)
        word = f"answers {response.status_code}"
        time.sleep(0.5 * 2**attempt)
    return Answer(word=word, silent=True)


def _judged(place: Place, status: int, text: str) -> Answer:
    commit = places.commit(place, text) if status == httpx.codes.OK else None
    if commit:
        return Answer(commit)
    if status in REFUSED:
        setting = "huggingface_token_file" if place.kind == "huggingface" else "token_file"
        return Answer(word=f"lets nobody in without the right token (models.{setting})")
    return Answer(word="has no such model or revision" if status in (200, 404) else f"answers {status}")


def _look(place: Place, model: str, revision: str, tokens: Tokens) -> Answer:
    """A directory on this machine: what it is called tells its commit from any other state of it."""
    folder = operators_folder(place, model)
    found = folder.rglob("*") if folder.is_dir() else ()
    files = sorted(path for path in found if path.is_file() and path != folder / MANIFEST)
    if not files:
        return Answer(word=f"has no files in {folder}")
    lines = []
    for path in files:
        stat = path.stat()
        lines.append(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}")
    return Answer(_digest("\n".join(lines)))


def operators_folder(place: Place, model: str) -> Path:
    """The model's directory on the operator's machine."""
    return Path(place.address).expanduser() / model


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Asking:
    """What a host that asks in the operator's stead gives to curl, on standard input: it may be secret."""

    def __init__(self, tokens: Tokens, settings: Settings) -> None:
        self.tokens, self.proxy = tokens, tokens.proxy or settings.models.proxy

    def config(self, place: Place) -> str:
        headers = self.tokens.headers(place.kind).items()
        lines = [f'header = "{name}: {value}"\n' for name, value in headers]
        return "".join([*lines, f'proxy = "{self.proxy}"\n' if self.proxy else ""])


def _there(host: Host, place: Place, model: str, revision: str, asking: Asking, needs: bool) -> Answer:
    """What a place says to a host; a host's own directory is its own, everything else is asked once."""
    own = place.kind == "host"
    key = (host.name if own else "*", str(place), model, revision)
    with _asking:
        # silence for one host is no answer for another that needs one
        if key not in _answers or (_answers[key].silent and needs):
            _answers[key] = (
                _look_there(host, place, model) if own else _ask_there(host, place, model, revision, asking)
            )
        return _answers[key]


LOOK = """
cd {folder} 2>/dev/null || exit 0
for name in {current} .; do
    if [ -e "$name/.bringup.json" ]; then cat "$name/.bringup.json"; exit 0; fi
done
LC_ALL=C find . -type f -printf '%P %s %T@\\n' | LC_ALL=C sort
"""


def _look_there(host: Host, place: Place, model: str) -> Answer:
    folder = f"{place.address}/{model}"
    text = _run(host, LOOK.format(folder=shlex.quote(folder), current="current"))
    if not text:
        return Answer(word=f"has no files in {folder}")
    found = places.commit(Place("mirror", ""), text)
    return Answer(found or _digest(text))


# Bare hosts have one of these; the answer is a few kilobytes. A token travels on standard input.
FETCH = """
url={url}
if command -v curl >/dev/null; then
    curl --silent --location --max-time 20 --config - --write-out '\\n%{{http_code}}' "$url"
elif [ -x /usr/lib/apt/apt-helper ] && [ -z "$(cat)" ]; then
    file=$(mktemp -u)
    set -- -o Acquire::Retries=0 -o Acquire::http::Timeout=20 download-file "$url" "$file"
    /usr/lib/apt/apt-helper "$@" >&2 && cat "$file" && printf '\\n200'
    rm -f "$file"
fi
"""


def _ask_there(host: Host, place: Place, model: str, revision: str, asking: Asking) -> Answer:
    script = FETCH.format(url=shlex.quote(places.question(place, model, revision)))
    text, _, status = _run(host, script, asking.config(place)).rpartition("\n")
    if not re.fullmatch(r"[1-9][0-9][0-9]", status) or int(status) in PASSING:
        return Answer(word="does not answer, neither here nor to the host", silent=True)
    return _judged(place, int(status), text)


def _run(host: Host, script: str, stdin: str = "") -> str:
    ok, output = host.run_shell_command(StringCommand(script), _stdin=[stdin], **Remote.own(host))
    return str(output.stdout).strip() if ok else ""
