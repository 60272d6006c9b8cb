"""Facts of models that are in no table: whose are wanted, and how a host keeps what was read.

They are read once and kept on the host, so that a later run decides the same whether or not the hub answers:
as long as the model is of the same commit.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping

from pydantic import TypeAdapter, ValidationError

from plan import models
from plan.models import ModelFacts
from plan.models_host import Pins
from plan.probe import Probe
from plan.sections import Service, Settings

FILE = "/etc/bringup/model-facts.json"
# None: the model's files could not be read, and the operator said how long the context shall be.
Facts = Mapping[str, ModelFacts | None]


@dataclasses.dataclass(frozen=True)
class _Kept(ModelFacts):
    """With the commit that they were read of; empty when nobody knew it."""

    commit: str = ""

    @property
    def plain(self) -> ModelFacts:
        names = [field.name for field in dataclasses.fields(ModelFacts)]
        return ModelFacts(**{name: getattr(self, name) for name in names})


_KEPT: TypeAdapter[dict[str, _Kept | None]] = TypeAdapter(dict[str, _Kept | None])


def key(service: Service) -> str:
    """What the facts of a service's model are kept under: its id and revision."""
    return f"{service.model}@{service.revision}"


def wanted(settings: Settings) -> Iterator[tuple[str, Service]]:
    """The services, by name, whose memory cannot be planned from the tables."""
    for name, service in settings.serve.items():
        if service.state == "present" and service.engine == "vllm" and not models.lookup(service.model):
            yield name, service


def kept(probe: Probe, pins: Pins | None = None) -> Facts:
    """What an earlier run read of the pinned commits; a file that cannot be understood counts as none."""
    return read(probe.model_facts, pins)


def read(text: str, pins: Pins | None = None) -> Facts:
    """The facts in the file's text, as `text` makes it; none when it cannot be understood."""
    try:
        found = _KEPT.validate_json(text, strict=True)
    except ValidationError:
        return {}
    commits = {f"{model}@{revision}": pin.commit for (model, revision), pin in (pins or {}).items()}
    return {
        name: entry and entry.plain
        for name, entry in found.items()
        if entry is None or entry.commit == commits.get(name, entry.commit)
    }


def text(settings: Settings, facts: Facts, pins: Pins | None = None) -> str | None:
    """The file that keeps them; None when every model is in the tables."""
    entries = {}
    for _, service in wanted(settings):
        fact = facts.get(key(service))
        pin = (pins or {}).get((service.model, service.revision))
        commit = {"commit": pin.commit if pin else ""}
        entries[key(service)] = dataclasses.asdict(fact) | commit if fact else None
    return json.dumps(entries, indent=1, sort_keys=True) + "\n" if entries else None
