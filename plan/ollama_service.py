"""One service by Ollama, from its settings and its decision: its model, its variables."""

from collections.abc import Iterable, Iterator, Mapping

from plan import modelfile
from plan.answer import Decision
from plan.errors import SettingsError
from plan.host import CreatedPlan, TagPlan
from plan.model_plan import MODELS_ROOT
from plan.modelfile import Modelfile
from plan.models_host import Pins, model_plan
from plan.ollama_settings import QUANTISED_CACHES
from plan.probe_ollama import whole_name
from plan.sections import OllamaServer, Service, Settings


def recipe(name: str, service: Service) -> Modelfile | None:
    """The Modelfile that the model of a service is made from; None when it is pulled.

    Raises:
        SettingsError: it cannot be used.
    """
    path = service.ollama.modelfile
    return modelfile.read(f"serve.{name}.ollama.modelfile", path) if path else None


def model(name: str, service: Service, settings: Settings, pins: Pins) -> TagPlan:
    """The model of a service: a tag that is pulled, or one that is made here.

    Raises:
        SettingsError: its Modelfile cannot be used, or makes it from a model of the same name.
    """
    made, store = recipe(name, service), settings.ollama.store
    if made is None:
        return TagPlan(service.model, "", "", store)
    if made.tag and whole_name(made.tag) == whole_name(service.model):
        fact = f"its Modelfile is made FROM {made.tag} itself"
        raise SettingsError([f"serve.{name}.model: {fact}. Give the model a name of its own."])
    commits = tuple(_commits(made.files, settings, pins))
    return CreatedPlan(service.model, "", "", store, made.text, made.tag, made_of=commits)


def _commits(files: Iterable[str], settings: Settings, pins: Pins) -> Iterator[str]:
    """What `current` in the path of a file leads to: the text of a Modelfile stays when that moves."""
    for file in files:
        owner, name, revision, *_ = file.removeprefix(f"{MODELS_ROOT}/").split("/")
        entry = settings.models.downloads.get(f"{owner}/{name}")
        if entry and revision == "current":
            yield model_plan(f"{owner}/{name}", entry.revision, settings, pins).commit


def variables(name: str, server: OllamaServer, decision: Decision, store: str) -> dict[str, str]:
    """What `ollama serve` of this service finds in its environment; OLLAMA_HOST is the unit's.

    Source: Ollama's envconfig/config.go and its FAQ.
    """
    return {
        # its key pair, which it makes at its first start
        "HOME": f"/var/cache/bringup/ollama-{name}",
        "OLLAMA_MODELS": store,
        "OLLAMA_KEEP_ALIVE": server.keep_alive,
        "OLLAMA_MAX_LOADED_MODELS": str(server.max_loaded),
        "OLLAMA_LOAD_TIMEOUT": server.load_timeout,
        # a start would delete what another server of the host is just pulling
        "OLLAMA_NOPRUNE": "1",
        # its library has models that run at ollama.com: questions stay on this host
        "OLLAMA_NO_CLOUD": "1",
        **_chosen(server),
        **decision.environment,
    }


def _chosen(server: OllamaServer) -> Mapping[str, str]:
    """What is left to Ollama unless the settings say otherwise."""
    flash = server.flash_attention
    if server.kv_cache_type in QUANTISED_CACHES:
        flash = True
    values = {
        "OLLAMA_NUM_PARALLEL": server.parallel,
        "OLLAMA_MAX_QUEUE": server.queue,
        "OLLAMA_SCHED_SPREAD": 1 if server.spread else None,
        "OLLAMA_KV_CACHE_TYPE": server.kv_cache_type,
        "OLLAMA_FLASH_ATTENTION": None if flash is None else int(flash),
        "OLLAMA_ORIGINS": ",".join(server.origins) or None,
    }
    return {name: str(value) for name, value in values.items() if value is not None}
