"""LoRA adapters of a service: small models beside its own, each served under a name of its own."""

from collections.abc import Iterator

from plan.host import Adapter
from plan.models_host import Pins, adapter_of, model_plan
from plan.sections import Service, Settings

# vLLM's own when nothing is said.
DEFAULT_RANK = 16
# So many adapters have a place on the GPU unless the settings say otherwise; the others take turns.
MOST_SLOTS = 4


def slots(service: Service) -> int:
    """How many adapters have a place in memory at once; 0 without any."""
    return service.max_loras or min(len(service.lora), MOST_SLOTS)


def rank(service: Service) -> int:
    """The largest rank that is planned for."""
    return service.max_lora_rank or DEFAULT_RANK


def planned(service: Service, settings: Settings, pins: Pins) -> Iterator[Adapter]:
    """The adapters of a service, in order of names."""
    for name, text in sorted(service.lora.items()):
        yield Adapter(name, model_plan(*adapter_of(text), settings, pins))


def flags(service: Service, adapters: tuple[Adapter, ...]) -> dict[str, object]:
    """What vLLM is told of them."""
    if not adapters:
        return {}
    return {
        "enable-lora": True,
        "max-loras": slots(service),
        "max-lora-rank": rank(service),
        "lora-modules": tuple(f"{adapter.name}={adapter.model.directory}" for adapter in adapters),
    }
