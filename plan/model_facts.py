"""Facts of models that are in no table: whose are wanted, and how a host keeps what was read.

They are read once and kept on the host, so that a later run decides the same whether or not the hub answers.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping

from pydantic import TypeAdapter, ValidationError

from plan import models
from plan.models import ModelFacts
from plan.probe import Probe
from plan.sections import Service, Settings

FILE = "/etc/bringup/model-facts.json"
# None: the model's files could not be read, and the operator said how long the context shall be.
Facts = Mapping[str, ModelFacts | None]
_KEPT: TypeAdapter[dict[str, ModelFacts | None]] = TypeAdapter(dict[str, ModelFacts | None])


def key(service: Service) -> str:
    """What the facts of a service's model are kept under: its id and revision."""
    return f"{service.model}@{service.revision}"


def wanted(settings: Settings) -> Iterator[tuple[str, Service]]:
    """The services, by name, whose memory cannot be planned from the tables."""
    for name, service in settings.serve.items():
        if service.state == "present" and service.engine == "vllm" and not models.lookup(service.model):
            yield name, service


def kept(probe: Probe) -> Facts:
    """What an earlier run read; a file that cannot be understood counts as none."""
    return read(probe.model_facts)


def read(text: str) -> Facts:
    """The facts in the file's text, as `text` makes it; none when it cannot be understood."""
    try:
        return _KEPT.validate_json(text, strict=True)
    except ValidationError:
        return {}


def text(settings: Settings, facts: Facts) -> str | None:
    """The file that keeps them; None when every model is in the tables."""
    entries = {key(service): facts.get(key(service)) for _, service in wanted(settings)}
    plain = {name: fact and dataclasses.asdict(fact) for name, fact in entries.items()}
    return json.dumps(plain, indent=1, sort_keys=True) + "\n" if entries else None
