"""What Ollama needs on a host beside its services: the archive, the models, and what may go."""

from collections.abc import Iterable, Iterator, Mapping

from plan import archives, ollama, ollama_service
from plan.errors import PlanError, SettingsError
from plan.host import MODELFILES, OLLAMA_STORES, CreatedPlan, OllamaPlan, ServicePlan, TagPlan
from plan.model_plan import MODELS_ROOT
from plan.probe import Probe
from plan.probe_mounts import mount_of
from plan.probe_ollama import InstalledOllama, whole_name
from plan.sections import Service, Settings

DEFAULT_STORE = InstalledOllama.store
STORE_PARTS = ("blobs", "manifests", "manifests-v2", "created")


def plan_ollama(settings: Settings, services: Iterable[ServicePlan], probe: Probe) -> OllamaPlan | None:
    """The plan for Ollama; None on a host whose settings say nothing of it.

    Raises:
        SettingsError: the archive of the settings' version cannot be named, or a name is of two models.
    """
    own = {name: service for name, service in settings.serve.items() if _ours(service)}
    if not own:
        return None
    store = settings.ollama.store
    served = [service.model for service in services if isinstance(service.model, TagPlan)]
    old_modelfiles = tuple(_old_modelfiles(served, probe))
    # a unit that is not in the settings is left alone, with all that it may run on
    foreign = _foreign_units(own, probe)
    if not served:
        all_paths = () if foreign else tuple(_all_paths(settings, probe))
        return OllamaPlan(None, store, (), (), (), (), (*old_modelfiles, *all_paths))
    made = [model for model in served if isinstance(model, CreatedPlan)]
    bases = [TagPlan(model.base, "", "", store) for model in made if model.base]
    named = [*bases, *served, *(TagPlan(tag, "", "", store) for tag in settings.ollama.models)]
    _check_names(made, named)
    tags = _distinct(named)
    _check_files(settings, own)
    archive = archives.ollama(settings.sources, probe.architecture)
    return OllamaPlan(
        archive=archive,
        store=store,
        tags=tags,
        removed_tags=tuple(_unwanted_tags(tags, probe)) if settings.ollama.prune and not foreign else (),
        damaged_blobs=tuple(sorted(probe.ollama.damaged)),
        unused_blobs=tuple(_unused_blobs(tags, probe)) if settings.ollama.prune else (),
        removed_paths=(*old_modelfiles, *(() if foreign else _unused_paths(archive, store, probe))),
        https_proxy=settings.ollama.https_proxy,
    )


def _ours(service: Service) -> bool:
    """Whether a service is Ollama's; of one that shall go the settings need not say what it was."""
    return service.engine == "ollama" or (
        service.state == "absent" and "engine" not in service.model_fields_set
    )


def short_of_room(plan: OllamaPlan, probe: Probe) -> Iterator[str]:
    """The sentence for a store whose disk cannot hold what is to come, as far as its size is known."""
    mounts = probe.mounts
    mount = mount_of(plan.store, mounts)
    free = mounts[mount] if mount else probe.disks[MODELS_ROOT].free_gib
    if free is None:
        return
    whole = probe.ollama.models
    missing = (
        ollama.tags().get(tag.model.lower()) for tag in plan.tags if whole_name(tag.model) not in whole
    )
    # what a cut pull left is gone on with
    needed = max(0.0, sum(tag.size_gib for tag in missing if tag) - probe.ollama.unused_bytes / 2**30)
    if mount != mount_of(probe.ollama.store, mounts):
        needed += probe.ollama.stored_bytes / 2**30
    if free < needed:
        yield (
            f"ollama.store: {plan.store} has {free:.1f} GiB free, the models need {needed:.0f}. "
            "Make room there, or set it to a directory on another disk."
        )


def _check_names(made: Iterable[CreatedPlan], named: Iterable[TagPlan]) -> None:
    """The store has one model of a name, so one of a Modelfile cannot share its name with another one.

    Raises:
        SettingsError: one does.
    """
    recipes = {whole_name(model.model): model.digest for model in made}
    for tag in named:
        recipe = recipes.get(whole_name(tag.model))
        if recipe and not (isinstance(tag, CreatedPlan) and tag.digest == recipe):
            fact = f"{tag.model} is made from a Modelfile, and something else is asked for by that name"
            raise SettingsError([f"serve: {fact}. Give the model of the Modelfile a name of its own."])


def _check_files(settings: Settings, services: Mapping[str, Service]) -> None:
    """Files that Modelfiles name have to be of models that the settings bring to the host.

    Raises:
        PlanError: one is not.
    """
    present = [
        f"{MODELS_ROOT}/{model}/"
        for model, entry in settings.models.downloads.items()
        if entry.state == "present"
    ]
    for name, service in services.items():
        recipe = ollama_service.recipe(name, service) if service.state == "present" else None
        for file in recipe.files if recipe else ():
            if not file.startswith(tuple(present)):
                model = "/".join(file.removeprefix(f"{MODELS_ROOT}/").split("/")[:2])
                setting = f"serve.{name}.ollama.modelfile"
                raise PlanError([f"{setting}: {file} is of no entry of `models`. Add {model!r} to them."])


def _distinct(tags: Iterable[TagPlan]) -> tuple[TagPlan, ...]:
    """Each model once, whatever way its name was written."""
    distinct: dict[str, TagPlan] = {}
    for tag in tags:
        distinct.setdefault(whole_name(tag.model), tag)
    return tuple(distinct.values())


def _foreign_units(own: Iterable[str], probe: Probe) -> list[str]:
    units = {f"ollama-{name}.service" for name in own}
    return [unit for unit in probe.units if unit.startswith("ollama-") and unit not in units]


def _unwanted_tags(tags: Iterable[TagPlan], probe: Probe) -> Iterator[str]:
    """The models of the store that no setting names."""
    wanted = {whole_name(tag.model) for tag in tags}
    yield from (name for whole, name in sorted(probe.ollama.named.items()) if whole not in wanted)


def _unused_blobs(tags: Iterable[TagPlan], probe: Probe) -> Iterator[str]:
    """Files of no model. What a cut pull left is of use until every model is there."""
    if all(tag.there(probe) for tag in tags):
        yield from sorted(probe.ollama.unused)


def _old_modelfiles(models: Iterable[TagPlan], probe: Probe) -> Iterator[str]:
    wanted = {model.file for model in models if isinstance(model, CreatedPlan)}
    yield from sorted(
        path for path in probe.paths if path.startswith(f"{MODELFILES}/") and path not in wanted
    )


def _unused_paths(archive: archives.Archive, store: str, probe: Probe) -> Iterator[str]:
    """Old versions, whole or not, and what a store has left where it was before."""
    planned = {archive.version, f"{archive.version}.part"}
    for version in sorted((probe.ollama.versions | probe.ollama.torn) - planned):
        yield f"{archives.OLLAMA_ROOT}/{version}"
    there = probe.ollama
    moved = [there.store] if there.store != store and there.stored_bytes else []
    yield from (path for old in (*there.old_stores, *moved) if old != store for path in _parts(old))


def _parts(store: str) -> Iterator[str]:
    """What is ours of a store: what Ollama and its models make in a directory that may be the operator's."""
    yield from (store,) if store == DEFAULT_STORE else (f"{store}/{part}" for part in STORE_PARTS)


def _all_paths(settings: Settings, probe: Probe) -> Iterator[str]:
    """All that is there of Ollama, its models only when asked."""
    if archives.OLLAMA_ROOT in probe.paths:
        yield archives.OLLAMA_ROOT
    if settings.ollama.prune:
        yield from (path for path in (OLLAMA_STORES,) if path in probe.paths)
        if probe.ollama.stored_bytes or (
            probe.ollama.store == DEFAULT_STORE and DEFAULT_STORE in probe.paths
        ):
            yield from _parts(probe.ollama.store)
