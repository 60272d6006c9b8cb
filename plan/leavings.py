"""What a host has no use for once nothing of ours is served, installed or kept there."""

from collections.abc import Iterator

from plan.host import HostPlan
from plan.probe import Probe

# Of the service user; /srv/models may be a disk of the operator's, and only goes when nothing is in it.
DIRECTORIES = ("/var/lib/bringup", "/var/cache/bringup")


def user_wanted(plan: HostPlan) -> bool:
    """Whether anything of the plan runs as the service user, or belongs to it."""
    return bool(
        plan.services or plan.environment or plan.models or (plan.ollama is not None and plan.ollama.archive)
    )


def user_unused(plan: HostPlan, probe: Probe) -> bool:
    """Whether the user is there, and neither the plan nor a model that stays has a use for it."""
    return probe.user_exists and not user_wanted(plan) and not any(_kept(plan, probe))


def _kept(plan: HostPlan, probe: Probe) -> Iterator[str]:
    """Models that stay on the host, and stores of Ollama's."""
    gone = tuple(f"{path}/" for path in plan.removed_models)
    yield from (directory for directory in probe.models if not f"{directory}/".startswith(gone))
    removed = plan.ollama.removed_paths if plan.ollama else ()
    store = probe.ollama.store
    if probe.ollama.stored_bytes and not {store, f"{store}/blobs"} & set(removed):
        yield store
