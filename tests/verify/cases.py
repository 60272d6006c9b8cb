"""Which checks there are: every test for each host, and for each part of its plan that the test asks for."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plan import hardening
from plan.host import HostPlan
from tests.verify.evidence import MODULES
from tests.verify.files import DIRECTORIES
from tests.verify.fleet import Subject

Parts = Iterable[tuple[Any, str]]


@dataclass(frozen=True)
class Case:
    """What one check is about: a host, a part of its plan, and what both are called in reports."""

    subject: Subject
    part: Any
    name: str


def cases(subjects: list[Subject], arguments: Iterable[str]) -> Iterator[Case]:
    """The cases of a test with these arguments.

    A host without a plan is a case of those tests alone that ask for `subject`.
    """
    asked = next((name for name in PARTS if name in arguments), None)
    for subject in subjects:
        if subject.planned and asked:
            for part, name in PARTS[asked](subject.planned.plan):
                yield Case(subject, part, f"{subject.name} {name}")
        elif not asked and (subject.planned or "subject" in arguments):
            yield Case(subject, None, subject.name)


def _directories(plan: HostPlan) -> Parts:
    return ((directory, directory.path) for directory in DIRECTORIES)


def _environments(plan: HostPlan) -> Parts:
    return [(plan.environment, plan.environment.name)] if plan.environment else []


def _pins(plan: HostPlan) -> Parts:
    parts = plan.environment.pins.values() if plan.environment else []
    return ((pin, " ".join(pin)) for pins in parts for pin in pins.items())


def _modules(plan: HostPlan) -> Parts:
    return ((pin, name) for pin, name in _pins(plan) if pin[0] in MODULES)


def _torch(plan: HostPlan) -> Parts:
    return ((pin, name) for pin, name in _pins(plan) if pin[0] == "torch")


def _models(plan: HostPlan) -> Parts:
    return ((model, f"{model.model} @ {model.revision}") for model in plan.models)


def _services(plan: HostPlan) -> Parts:
    return (
        (service, f"{service.name} {service.served_name} on {service.port}")
        for service in plan.services
        if service.engine == "vllm"
    )


def _batches(plan: HostPlan) -> Parts:
    return ((batch, f"{batch.name} {batch.service.served_name}") for batch in plan.batches)


def _ollama_services(plan: HostPlan) -> Parts:
    return (
        (service, f"{service.name} {service.model.model} on {service.port}")
        for service in plan.services
        if service.engine == "ollama"
    )


def _guarded(plan: HostPlan) -> Parts:
    of_all = (*_services(plan), *_ollama_services(plan))
    return ((service, name) for service, name in of_all if service.needs_key)


def _confined(plan: HostPlan) -> Parts:
    return ((unit, unit.name) for unit in hardening.units(plan))


def _gateways(plan: HostPlan) -> Parts:
    return [(plan.gateway, "front")] if plan.gateway else []


def _keys(plan: HostPlan) -> Parts:
    services = [service for service, _ in _guarded(plan)]
    return [(services, "API key")] if services else []


# A test with an argument of this name runs once for each of these parts; the first name that fits counts.
PARTS: Mapping[str, Callable[[HostPlan], Parts]] = {
    "guarded_services": _keys,
    "guarded_service": _guarded,
    "gateway": _gateways,
    "confined": _confined,
    "offline": _services,
    "ollama_service": _ollama_services,
    "service": _services,
    "batch": _batches,
    "model": _models,
    "torch": _torch,
    "module": _modules,
    "pin": _pins,
    "environment": _environments,
    "directory": _directories,
}
