"""What `--upgrade` asks of a lock: the names that move, which of them uv moves, and to which versions."""

from collections.abc import Iterable, Mapping

from plan import locking
from plan.errors import SettingsError
from plan.lock import Lock
from plan.sections import Settings

# Moved by a plan that is made anew, not by uv.
PLANNED = ("vllm", "torch", "python", "ollama")
SPECIAL = (*PLANNED, "packages", "driver")


def versions(upgrades: Iterable[str]) -> Mapping[str, str]:
    """Name -> the version that is asked for; empty where that is the newest."""
    return dict(one.partition("==")[::2] for one in upgrades)


def distributions(upgrades: Iterable[str]) -> tuple[str, ...]:
    """Those that uv moves within a stack that is planned as before."""
    return tuple(one for one in upgrades if one.partition("==")[0] not in SPECIAL and not {"/", ":"} & {*one})


def asked(settings: Settings, upgrades: Iterable[str]) -> Settings:
    """The settings with the versions asked for, wherever the operator's settings have none."""
    wanted = versions(upgrades)
    environment = {part: wanted[part] for part in ("python", "torch") if wanted.get(part)}
    settings = settings.model_copy(update={"environment": locking.unset(settings.environment, **environment)})
    if wanted.get("ollama"):
        sources = locking.unset(settings.sources, ollama_version=wanted["ollama"])
        settings = settings.model_copy(update={"sources": sources})
    return locking.with_vllm(settings, wanted["vllm"]) if wanted.get("vllm") else settings


def check(upgrades: Iterable[str], old: Lock | None) -> None:
    """An upgrade has to have something to move.

    Raises:
        SettingsError: the lock has no such thing, or that moves to no version of choice.
    """
    stacks = old.stack.values() if old else ()
    models = [*(key.partition("@")[0] for key in old.model), *old.tag] if old else []
    for name, version in versions(upgrades).items():
        if name not in (*SPECIAL, *models) and not any(name in stack.versions for stack in stacks):
            raise SettingsError(
                [
                    f"--upgrade: the lock has no {name}. Name a package, a model, vllm, torch, python, "
                    "ollama, packages or driver."
                ]
            )
        if version and name in ("packages", "driver"):
            raise SettingsError(
                [f"--upgrade: {name} moves to what its source has now. Leave out =={version}."]
            )
