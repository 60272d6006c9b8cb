"""The models of one host: which commit of each, from where, and which earlier ones stay."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from plan import sources
from plan.host import ServicePlan, TagPlan
from plan.model_plan import MODELS_ROOT, DownloadPlan, ModelPlan
from plan.places import COMMIT
from plan.probe import Probe
from plan.probe_models import InstalledModel
from plan.sections import Download, Settings

# On the host: which commit each revision was at the last deploy. A manifest has the revision by which its
# model came; the same commit may be another one's since, and a revision may be an earlier commit again.
PINS_FILE = "/etc/bringup/model-pins.json"


@dataclass(frozen=True)
class Pin:
    """The commit that a revision is, and the place that said so, as the settings write it."""

    commit: str
    place: str


# (model, revision) -> its pin
Pins = Mapping[tuple[str, str], Pin]


def adapter_of(text: str) -> tuple[str, str]:
    """Model and revision of a LoRA adapter, as a service's setting writes them."""
    model, _, revision = text.partition("@")
    return model, revision or "master"


def wanted(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every (model, revision) that this host shall have, of those that come from a place of models."""
    pairs = [
        (service.model, service.revision)
        for _, service in sorted(settings.serve.items())
        if service.engine == "vllm" and service.state == "present"
    ]
    pairs += [
        adapter_of(adapter)
        for _, service in sorted(settings.serve.items())
        if service.state == "present"
        for _, adapter in sorted(service.lora.items())
    ]
    pairs += [
        (model, download.revision)
        for model, download in settings.models.downloads.items()
        if download.state == "present"
    ]
    yield from dict.fromkeys(pairs)


def model_plan(model: str, revision: str, settings: Settings, pins: Pins) -> ModelPlan:
    """A model at the commit of its pin; a revision that is a commit needs none."""
    pin = pins.get((model, revision))
    files = settings.models.downloads.get(model, Download())
    return ModelPlan(
        model=model,
        revision=revision,
        endpoint=pin.place if pin else sources.models_endpoint(settings.sources),
        commit=pin.commit if pin else revision if COMMIT.fullmatch(revision) else "",
        include=tuple(files.include),
        exclude=tuple(files.exclude),
    )


def plan_models(settings: Settings, services: Iterable[ServicePlan], pins: Pins) -> Iterator[ModelPlan]:
    """The models of the services, then the downloads without one."""
    served = [service.model for service in services if not isinstance(service.model, TagPlan)]
    others = [model_plan(model, revision, settings, pins) for model, revision in wanted(settings)]
    yield from dict.fromkeys([*served, *others])


def plan_downloads(settings: Settings) -> DownloadPlan:
    """How this host's models are brought to it."""
    wish = settings.models
    return DownloadPlan(
        places=tuple(map(str, sources.model_places(settings.sources))),
        verify=wish.verify,
        seeds=wish.seeds,
        network=wish.network,
        max_rate_mbit=wish.max_rate_mbit,
        proxy=wish.proxy,
    )


def pins_text(models: Iterable[ModelPlan]) -> str:
    """The file that keeps the pins of models."""
    rows = sorted([model.model, model.revision, model.commit, model.endpoint] for model in models)
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def kept_pins(probe: Probe) -> Pins:
    """What that file says; one that cannot be read says nothing."""
    try:
        rows = [tuple(map(str, row)) for row in json.loads(probe.model_pins or "[]")]
        pins = {(model, revision): Pin(commit, place) for model, revision, commit, place in rows}
    except (ValueError, TypeError):
        return {}
    return {asked: pin for asked, pin in pins.items() if COMMIT.fullmatch(pin.commit)}


def installed_pin(model: str, revision: str, probe: Probe) -> Pin | None:
    """The whole commit of this revision, for when nobody can be asked: as deployed last, else the newest."""
    kept = kept_pins(probe).get((model, revision))
    there = probe.models.get(f"{MODELS_ROOT}/{model}/{kept.commit}") if kept else None
    if kept and there and there.intact(model, revision, kept.commit):
        return kept
    found = _recorded(model, revision, probe)
    whole = [there for there in found if there.intact(model, revision, there.manifest["commit"])]
    newest = max(whole, key=_published, default=None)
    return Pin(newest.manifest["commit"], str(newest.manifest.get("place", ""))) if newest else None


def recorded_pins(settings: Settings, probe: Probe) -> Pins:
    """What the host says it has of each wanted revision, whole or not: what its checks are held to."""
    pins, kept = {}, kept_pins(probe)
    for model, revision in wanted(settings):
        if (model, revision) in kept:
            pins[model, revision] = kept[model, revision]
            continue
        newest = max(_recorded(model, revision, probe), key=_published, default=None)
        if newest:
            pins[model, revision] = Pin(newest.manifest["commit"], str(newest.manifest.get("place", "")))
    return pins


def _recorded(model: str, revision: str, probe: Probe) -> list[InstalledModel]:
    asked = (model, revision)
    found = [
        there
        for directory, there in probe.models.items()
        if (there.manifest.get("model"), there.manifest.get("revision")) == asked
        and not directory.endswith(".part")
    ]
    return [there for there in found if COMMIT.fullmatch(str(there.manifest.get("commit", "")))]


def _published(installed: InstalledModel) -> str:
    return str(installed.manifest.get("published", ""))


def removed_models(settings: Settings, models: Iterable[ModelPlan], probe: Probe) -> Iterator[str]:
    """What to remove once the services have been switched: the `absent`, and commits too old to keep."""
    models = list(models)
    planned = {model.directory for model in models}
    others = {
        directory: installed
        for directory, installed in probe.models.items()
        if directory not in planned and not directory.endswith(".part")
    }
    for model, entry in settings.models.downloads.items():
        if entry.state == "absent":
            only = entry.revision if "revision" in entry.model_fields_set else None
            yield from _absent(model, only, models, others, probe)
    for model in dict.fromkeys(plan.model for plan in models):
        old = [path for path in others if _is(path, others[path], model, None)]
        old.sort(key=lambda path: _published(others[path]), reverse=True)
        yield from sorted(old[settings.models.keep :])


def _absent(
    model: str,
    revision: str | None,
    models: Iterable[ModelPlan],
    others: Mapping[str, InstalledModel],
    probe: Probe,
) -> list[str]:
    """What is there of a model, or of one revision, whole or cut; its directory, where no more is left."""
    parent = f"{MODELS_ROOT}/{model}"
    growing = {plan.staging for plan in models}
    commits = [path for path in others if _is(path, others[path], model, None)]
    cut = [path for path in probe.model_parts if path.rpartition("/")[0] == parent and path not in growing]
    gone = [path for path in commits if _is(path, others[path], model, revision)]
    gone += [path for path in cut if revision is None or path == ModelPlan(model, revision, "").staging]
    # a commit that is planned may come in this run
    stays = model in {plan.model for plan in models} or len(gone) < len(commits) + len(cut)
    return [parent] if gone and not stays else sorted(gone)


def _is(path: str, installed: InstalledModel, model: str, revision: str | None) -> bool:
    """Whether a directory holds this model, and this revision (any, when None)."""
    parent, _, name = path.rpartition("/")
    if not re.fullmatch(rf"{MODELS_ROOT}/{re.escape(model)}", parent):
        return False
    known = (name, installed.manifest.get("revision"), installed.manifest.get("commit"))
    return revision is None or revision in known
