"""Facts of models that are in no table: kept by the host, or read from the hub once for the whole run."""

import threading
from collections.abc import Iterator

from plan import model_facts, sources
from plan.errors import PlanError
from plan.hub import Hub
from plan.model_facts import Facts
from plan.models import ModelFacts
from plan.probe import Probe
from plan.sections import Service, Settings

# (endpoint, model, revision) -> the facts, or why there are none; hosts are planned side by side
_read: dict[tuple[str, str, str], ModelFacts | PlanError] = {}
_reading = threading.Lock()


def facts_for(settings: Settings, probe: Probe) -> Facts:
    """The facts of every served model that the tables lack.

    Raises:
        PlanError: a model's files cannot be read, and the settings do not say how long its context shall be.
    """
    kept = model_facts.kept(probe)
    endpoint = sources.models_endpoint(settings.sources)
    found: dict[str, ModelFacts | None] = {}
    problems: list[str] = []
    for name, service in model_facts.wanted(settings):
        key = model_facts.key(service)
        if key in kept:
            found[key] = kept[key]
            continue
        answer = _facts(endpoint, service)
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


def _facts(endpoint: str, service: Service) -> ModelFacts | PlanError:
    question = (endpoint, service.model, service.revision)
    with _reading:
        if question not in _read:
            try:
                with Hub(endpoint, service.revision) as hub:
                    _read[question] = hub.facts(service.model)
            except PlanError as error:
                _read[question] = error
        return _read[question]
