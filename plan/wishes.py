"""What the settings of a service ask of the resolver."""

from typing import Any

from plan import adapters, ollama_service
from plan.answer import Wish
from plan.sections import Service, Settings


def wish_for(service: Service | None, settings: Settings) -> Wish:
    """The wish of one service; None: of an environment without one.

    Flags of the operator's own that bear on the fit count as the settings that they are.
    """
    environment = settings.environment
    common: dict[str, Any] = {
        "torch": environment.torch,
        "python": environment.python,
        "policy": environment.policy,
        "prefer": environment.prefer,
        "manage_driver": settings.driver.managed,
    }
    if service is None:
        return Wish(**common)
    flags = service.own_flags
    return Wish(
        **common,
        engine=service.engine,
        model=_model(service, settings),
        vllm=service.vllm,
        gpus=service.gpus,
        tensor_parallel=_whole(flags.get("tensor-parallel-size")),
        max_model_len=_whole(flags.get("max-model-len")) or service.max_model_len,
        gpu_memory_utilization=service.gpu_memory_utilization,
        dtype=service.dtype,
        kv_cache_dtype=service.ollama.kv_cache_type if service.engine == "ollama" else service.kv_cache_dtype,
        parallel=service.ollama.parallel or 1,
        spread=service.ollama.spread,
        enforce_eager=flags.get("enforce-eager") is True,
        kv_cache_memory_bytes=_whole(flags.get("kv-cache-memory-bytes")),
        lora_slots=adapters.slots(service) if service.lora else 0,
        lora_rank=adapters.rank(service) if service.lora else 0,
    )


def _model(service: Service, settings: Settings) -> str:
    """The model whose size counts: of one that is made from a Modelfile, what it is made from."""
    name = next((name for name, other in settings.serve.items() if other is service), "*")
    recipe = ollama_service.recipe(name, service) if service.engine == "ollama" else None
    return recipe.tag or service.model if recipe else service.model


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
