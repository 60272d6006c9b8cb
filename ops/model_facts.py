"""Facts of models that are in no table: kept by the host, or read once for the whole run where they lie."""

import base64
import dataclasses
import shlex
import threading
from collections.abc import Iterator

from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host

from ops.pins import operators_folder
from ops.remote import Remote
from plan import checkpoint, model_facts, places, sources
from plan.errors import PlanError
from plan.hub import Hub
from plan.model_facts import Facts
from plan.models import ModelFacts
from plan.models_host import Pins
from plan.places import Place
from plan.probe import Probe
from plan.sections import Service, Settings
from plan.tokens import Tokens

# (place, and whose own directory it is; model; commit or revision) -> the facts, or why there are none
_read: dict[tuple[str, str, str], ModelFacts | PlanError] = {}
_reading = threading.Lock()


def facts_for(
    host: Host,
    settings: Settings,
    probe: Probe,
    pins: Pins,
    tokens: Tokens,
    bundle: tuple[Host, Place] | None = None,
) -> Facts:
    """The facts of every served model that the tables lack, of the pinned commits.

    `bundle`: who has the files before this host can, and where; None: their own place is asked.

    Raises:
        PlanError: a model's files cannot be read, and the settings do not say how long its context shall be.
    """
    kept = model_facts.kept(probe, pins)
    found: dict[str, ModelFacts | None] = {}
    problems: list[str] = []
    for name, service in model_facts.wanted(settings):
        key = model_facts.key(service)
        if key in kept:
            found[key] = kept[key]
            continue
        pin = pins.get((service.model, service.revision))
        place = places.place(pin.place) if pin and pin.place else sources.model_places(settings.sources)[0]
        asked, place = bundle or (host, place)
        answer = _facts(asked, place, service.model, pin.commit if pin else service.revision, tokens)
        found[key] = answer if isinstance(answer, ModelFacts) else None
        if isinstance(answer, PlanError) and not service.max_model_len:
            problems += _unreadable(name, service, answer)
    if problems:
        raise PlanError(problems)
    return found


def _unreadable(name: str, service: Service, error: PlanError) -> Iterator[str]:
    for sentence in error.sentences:
        yield (
            f"serve.{name}.model: {service.model} is in no table, and its files cannot be read to plan its "
            f"memory: {sentence} Or set serve.{name}.max_model_len to serve it unchecked."
        )


def _facts(host: Host, place: Place, model: str, revision: str, tokens: Tokens) -> ModelFacts | PlanError:
    own = f" on {host.name}" if place.kind == "host" else ""
    question = (f"{place}{own}", model, revision)
    with _reading:
        if question not in _read:
            try:
                _read[question] = _ask(host, place, model, revision, tokens)
            except PlanError as error:
                _read[question] = error
        return _read[question]


def _ask(host: Host, place: Place, model: str, revision: str, tokens: Tokens) -> ModelFacts:
    if place.on_the_net:
        with Hub(place, revision, tokens.headers(place.kind)) as hub:
            return hub.facts(model)
    if place.kind == "operator":
        folder = operators_folder(place, model)
        # a bundle keeps a model by its commit
        one = folder / revision
        found = checkpoint.from_directory(one if one.is_dir() else folder)
        return dataclasses.replace(found, id=model, source=str(place))
    return _of_a_hosts_directory(host, place, model, revision)


# config.json, then the header of every file of weights, each as one line of base64.
HEADERS = """
cd {folder} 2>/dev/null || exit 0
for name in {commit} current .; do if [ -e "$name/config.json" ]; then cd "$name"; break; fi; done
base64 -w 0 config.json 2>/dev/null || exit 0
for file in *.safetensors; do
    [ -e "$file" ] || continue
    echo
    length=$(od -An -t u8 -N {first} "$file" | tr -d ' ')
    [ "$length" -le {most} ] && tail -c +{after} "$file" | head -c "$length" | base64 -w 0
done
"""


def _of_a_hosts_directory(host: Host, place: Place, model: str, commit: str) -> ModelFacts:
    folder = f"{place.address}/{model}"
    script = HEADERS.format(
        folder=shlex.quote(folder),
        commit=shlex.quote(commit),
        first=checkpoint.LENGTH_BYTES,
        after=checkpoint.LENGTH_BYTES + 1,
        most=checkpoint.MOST_HEADER_BYTES,
    )
    ok, output = host.run_shell_command(StringCommand(script), **Remote.own(host))
    # no line at all: there is no such directory
    lines = str(output.stdout).splitlines() if ok else []
    config, *headers = [base64.b64decode(line) for line in lines or [""]]
    if not headers:
        raise PlanError([f"{folder} on the host holds no model with *.safetensors."])
    return checkpoint.facts(
        model,
        checkpoint.parse_config(config.decode(), f"{folder}/config.json"),
        (checkpoint.parse_header(header, folder) for header in headers),
        str(place),
    )
