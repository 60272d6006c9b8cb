"""What a host asks of the lock: its plan, and the stack that it is to have."""

import dataclasses
from collections.abc import Iterable, Mapping

from plan import lock_upgrades, locking, uv
from plan.host import HostPlan
from plan.lock import Installer, Stack, Uv
from plan.seen import Seen
from plan.settings import Settings


@dataclasses.dataclass(frozen=True)
class Wish:
    """A host with its plan.

    Attributes:
        instead_of: newer choices that had no closure, and why.
        kept: what its stack is called in the old lock, when it stays at that.
    """

    seen: Seen
    settings: Settings
    plan: HostPlan
    platform: str
    instead_of: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kept: str | None = None

    @property
    def stack(self) -> str | None:
        """What its stack is called."""
        if self.kept or self.plan.environment is None:
            return self.kept
        return locking.stack_name(self.plan.environment, self.platform)

    @property
    def vllm(self) -> str:
        """`vllm VERSION` of the plan; empty when it has none."""
        pins = self.plan.environment.pins if self.plan.environment else {}
        version = pins.get("vllm", {}).get("vllm")
        return f"vllm {version}" if version else ""

    def resolved(self, wheels: uv.Closure, upgrades: Iterable[str]) -> Stack:
        """Its stack as the lock has it; `wheels` are its closure, in which `upgrades` were moved."""
        environment = self.plan.environment
        assert environment
        urls = environment.installer_urls
        moved = lock_upgrades.versions(upgrades)
        return Stack(
            made_by=f"uv {uv.version()} pip compile; installer and conda packages of plan/conda.toml "
            "or the settings; uv of plan/tools.toml",
            python=environment.python,
            platform=self.platform,
            instead_of=dict(self.instead_of),
            installer=Installer(url=urls[-1], sha256=environment.installer_sha256),
            uv=Uv(version=environment.uv.version, sha256=list(environment.uv.sha256)),
            pins={part: dict(pins) for part, pins in environment.pins.items()},
            constraints={name: moved.get(name) or pin for name, pin in environment.constraints.items()},
            conda=locking.conda_entries(environment),
            wheels=wheels,
        )
