"""Hosts to lock, and closures that need no index."""

from collections.abc import Iterable, Mapping
from typing import Any

from plan import lock_make, uv
from plan.host import EnvironmentPlan, HostPlan
from plan.lock import File, Lock, Model, Tag, Wheel
from plan.seen import Seen
from plan.tokens import Tokens
from tests import probes
from tests.probes import with_block

BARE = probes.answer(probes.BARE)
GPU = with_block(
    with_block(BARE, "pci", "0000:18:00.0 0x10de 0x2330 0x030200"),
    "driver",
    "580.65.06",
)
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
ONE: dict[str, Any] = {"serve": {"chat": {"model": MODEL}}}


def settings(**service: Any) -> dict[str, Any]:
    """One service, with these settings beside its model."""
    return {"serve": {"chat": {"model": MODEL, **service}}}


def closure(
    environment: EnvironmentPlan,
    platform: str,
    preferred: Mapping[str, str],
    upgrades: Iterable[str] = (),
    as_of: str | None = None,
) -> uv.Closure:
    """What is pinned, and `certifi`, at its old version unless that is upgraded."""
    moved = dict(one.partition("==")[::2] for one in upgrades)
    pins = {name: version for part in environment.pins.values() for name, version in part.items()}
    newest = moved.get("certifi") or "2026.10.18"
    pins["certifi"] = newest if "certifi" in moved else preferred.get("certifi", newest)
    return {
        f"{name}=={version}": [Wheel(file=f"{name}-{version}-py3-none-any.whl", sha256="a" * 64, size=1)]
        for name, version in sorted(pins.items())
    }


def locked(*hosts: Seen, old: Lock | None = None, upgrades: tuple[str, ...] = ()) -> lock_make.Made:
    """The lock of these hosts."""
    return lock_make.make(hosts, old, upgrades, listed, tag, closure)


def tag(name: str, proxy: str | None = None) -> Tag:
    """A model of Ollama's, of two layers."""
    layers = {f"sha256:{1:064x}": 1, f"sha256:{2:064x}": 2}
    return Tag(made_by="a manifest", manifest="c" * 64, layers=layers)


def listed(plan: HostPlan, name: str, given: Tokens) -> Model:
    """A model of one file."""
    return Model(made_by="a list", files={"config.json": File(size=2, sha256="b" * 64)})
