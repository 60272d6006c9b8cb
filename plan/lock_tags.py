"""Models of Ollama's registries in a lock: which a plan has, held to the old lock or listed anew."""

import dataclasses
from collections.abc import Callable, Collection, Iterator

from plan.errors import PlanError
from plan.host import CreatedPlan, HostPlan, TagPlan
from plan.lock import Host, Lock, Tag

# What a registry has under a name now, through a proxy.
Lister = Callable[[str, str | None], Tag]


def key(name: str) -> str:
    """What a model is called in the lock: with its tag, which is never left out."""
    return name if ":" in name else f"{name}:latest"


def names(plan: HostPlan) -> list[str]:
    """What the pulled models of a plan are called in the lock."""
    return sorted({key(tag.model) for tag in _pulled(plan)})


def _pulled(plan: HostPlan) -> Iterator[TagPlan]:
    tags = plan.ollama.tags if plan.ollama else ()
    yield from (tag for tag in tags if not isinstance(tag, CreatedPlan))


def listed(
    plan: HostPlan, old: Lock | None, upgrades: Collection[str], known: dict[str, Tag], lister: Lister
) -> Iterator[str]:
    """Adds what a plan has of them to those that are known; gives a note for each that cannot be listed."""
    for name in names(plan):
        there = old.tag.get(name) if old else None
        if name in known:
            continue
        if there and name not in upgrades:
            known[name] = there
            continue
        try:
            known[name] = lister(name, plan.ollama.https_proxy if plan.ollama else None)
        except PlanError as error:
            if there:
                known[name] = there
            without = "as it was" if there else "without its layers"
            yield f"model {name} is in the lock {without}: {' '.join(error.sentences)}"


def drift(plan: HostPlan, entry: Host, lock: Lock) -> Iterator[str]:
    """The models of a plan that the lock has not, in words that follow 'the lock has'."""
    # locks of earlier versions have none, and one that could not be listed is in no lock
    if lock.tag:
        yield from (f"no {name} for it" for name in names(plan) if name not in entry.tags)


def held(plan: HostPlan, lock: Lock) -> HostPlan:
    """The plan with the manifests and layers of the lock; its services wait for these too."""
    if plan.ollama is None:
        return plan
    tags = tuple(_with_layers(tag, lock) for tag in plan.ollama.tags)
    services = tuple(
        dataclasses.replace(service, model=_with_layers(service.model, lock))
        if isinstance(service.model, TagPlan)
        else service
        for service in plan.services
    )
    return dataclasses.replace(plan, services=services, ollama=dataclasses.replace(plan.ollama, tags=tags))


def _with_layers(tag: TagPlan, lock: Lock) -> TagPlan:
    """A model as the lock has it; one that is made from a Modelfile is made anew with its base."""
    if isinstance(tag, CreatedPlan):
        base = lock.tag.get(key(tag.base)) if tag.base else None
        return dataclasses.replace(tag, made_of=(*tag.made_of, *sorted(base.layers))) if base else tag
    there = lock.tag.get(key(tag.model))
    if there is None:
        return tag
    return dataclasses.replace(tag, layers=tuple(sorted(there.layers)), manifest=there.manifest)
