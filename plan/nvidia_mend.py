"""What is done about GPUs that ail: a reset once their services have stopped, a reboot where that is allowed.

Nothing is tried twice in a row: a GPU is reset once a boot, and a reboot that did not help is not repeated.
"""

import re
from collections.abc import Iterator

from plan import gpu_health
from plan.gpu_health import Ailment
from plan.nvidia_plan import DriverPlan, Mending
from plan.probe import Probe
from plan.sections import Driver, Settings

# Services that are stopped before anything is done to a GPU, as a process's control group names them.
_OURS = re.compile(
    r"/(vllm|ollama|bringup)-[^/]*\.service|/nvidia-(persistenced|dcgm|fabricmanager|imex)\.service"
)


def mending(settings: Driver, plan: DriverPlan, probe: Probe) -> Mending:
    """What this run does about the GPUs' health.

    Args:
        settings: what is allowed.
        plan: with the driver's own work, which goes first: it stops the same services and may cure by itself.
        probe: what the host is.
    """
    whole = to_be_whole(settings, probe)
    if plan.work.needed or plan.work.start or strangers(probe):
        return Mending(whole=whole, because="cut into instances (MIG)" if whole else "")
    given_up = gpu_health.rebooted_in_vain(probe)
    found = [ailment for ailment in gpu_health.ailments(probe) if ailment.name not in given_up]
    reset = [ailment for ailment in found if _to_reset(ailment, settings, probe)]
    rest = [ailment for ailment in found if ailment.remedy != "look" and ailment not in reset]
    if rest and settings.reboot == "allowed":
        # it helps those that a reset would help, too
        return Mending(whole=whole, reboot=_names([*rest, *reset]), because=_because([*rest, *reset]))
    cut = "cut into instances (MIG)" if whole else ""
    because = ", ".join(words for words in (cut, _because(reset)) if words)
    return Mending(whole=whole, reset=_names(reset), because=because)


def to_be_whole(settings: Driver, probe: Probe) -> tuple[str, ...]:
    """The GPUs that are cut into instances and shall not be."""
    return gpu_health.cut(probe) if settings.mig == "off" else ()


def in_the_way(settings: Driver, probe: Probe) -> Iterator[str]:
    """Why GPUs cannot be made whole, which the rest of the plan counts on; a refusal."""
    others = strangers(probe)
    if others and to_be_whole(settings, probe):
        yield (
            f"driver.mig: is off, and GPUs that are cut into instances are in use by "
            f"{', '.join(others)}. Stop that, and run again."
        )


def warnings(settings: Settings, probe: Probe) -> Iterator[str]:
    """What keeps GPUs that ail from being mended."""
    others = strangers(probe)
    mendable = [ailment for ailment in gpu_health.ailments(probe) if ailment.remedy != "look"]
    if others and mendable and settings.driver.managed:
        yield f"GPUs that wait to be mended are in use by {', '.join(others)}. Stop that, and run again."


def strangers(probe: Probe) -> tuple[str, ...]:
    """Programs on the GPUs that are no service of ours, as `PID NAME`: nothing is done below them."""
    return tuple(" ".join(holder.split()[:2]) for holder in probe.gpu_holders if not _OURS.search(holder))


def _to_reset(ailment: Ailment, settings: Driver, probe: Probe) -> bool:
    allowed = settings.reset == "allowed" and ailment.remedy == "reset"
    return allowed and bool(ailment.uuid) and ailment.name not in probe.nvidia.reset


def _names(found: list[Ailment]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ailment.name for ailment in found))


def _because(found: list[Ailment]) -> str:
    return ", ".join(dict.fromkeys(f"GPU {ailment.gpu}: {ailment.fact}" for ailment in found))
