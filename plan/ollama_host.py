"""What Ollama needs on a host beside its services: the archive, the models, and what may go."""

from collections.abc import Iterable, Iterator

from plan import archives
from plan.host import OLLAMA_STORE, OllamaPlan, ServicePlan, TagPlan
from plan.probe import Probe, ollama_name
from plan.sections import Service, Settings


def plan_ollama(settings: Settings, services: Iterable[ServicePlan], probe: Probe) -> OllamaPlan | None:
    """The plan for Ollama; None on a host whose settings say nothing of it.

    Raises:
        SettingsError: the archive of the settings' version cannot be named.
    """
    own = {name: service for name, service in settings.serve.items() if service.engine == "ollama"}
    if not own:
        return None
    tags = tuple(dict.fromkeys(service.model for service in services if isinstance(service.model, TagPlan)))
    archive = archives.ollama(settings.sources, probe.architecture) if tags else None
    foreign = _foreign_units(own, probe)
    return OllamaPlan(
        archive=archive,
        tags=tags,
        removed_tags=tuple(_removed_tags(own.values(), probe)) if archive else (),
        # a unit that is not in the settings is left alone, with all that it may run on
        removed_paths=() if foreign else tuple(_removed_paths(archive, probe)),
    )


def _foreign_units(own: Iterable[str], probe: Probe) -> list[str]:
    units = {f"ollama-{name}.service" for name in own}
    return [unit for unit in probe.units if unit.startswith("ollama-") and unit not in units]


def _removed_tags(services: Iterable[Service], probe: Probe) -> Iterator[str]:
    """Models of services that shall be absent, unless another service has the same."""
    services = list(services)
    kept = {ollama_name(service.model) for service in services if service.state == "present"}
    for service in services:
        name = ollama_name(service.model)
        if service.state == "absent" and name not in kept and name in probe.ollama.models:
            yield service.model


def _removed_paths(archive: archives.Archive | None, probe: Probe) -> Iterator[str]:
    """Every version but the planned one; with none planned, all that is there of Ollama."""
    if archive is None:
        yield from (path for path in (archives.OLLAMA_ROOT, OLLAMA_STORE) if path in probe.paths)
        return
    for version in sorted(probe.ollama.versions - {archive.version}):
        yield f"{archives.OLLAMA_ROOT}/{version}"
