"""The burn-in: whether NVIDIA's diagnostic is to run on a host, at which level, and what it found."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plan import compat
from plan.gpus import Capability, Gpu, oldest
from plan.probe import Probe
from plan.sections import BurnIn

RESULT = "/etc/bringup/burn-in.json"
# CUDA 13 ends with Volta, whatever the driver: https://docs.nvidia.com/datacenter/dcgm/latest/installation.html
_FIRST_OF_CUDA_13 = Capability(7, 5)
# The driver's own and DCGM's hold the GPUs too, and stop no test.
_DAEMONS = re.compile(r"/nvidia-(persistenced|dcgm|fabricmanager|imex)\.service")
# DCGM's own word for a finding about a setting of the host, not about the card (dcgm_errors.h).
_SETTING = 5


@dataclass(frozen=True)
class BurnInPlan:
    """The burn-in of a host.

    Attributes:
        level: of `dcgmi diag`; None when DCGM shall go.
        gpus: PCI address and device id of each GPU that is tested.
        needed: whether the diagnostic is to run now.
        waits: why it cannot run now although it is needed; empty when it can.
    """

    level: int | None
    packages: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    needed: bool = False
    waits: str = ""


@dataclass(frozen=True)
class Findings:
    """What a diagnostic said: failures of GPUs, and settings of the host that it would have otherwise."""

    failures: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_burn_in(
    settings: BurnIn, cards: tuple[Gpu, ...], driver: str | None, probe: Probe
) -> BurnInPlan | None:
    """The burn-in of this host; None when none is asked for, or there is nothing to test.

    Args:
        settings: of the host.
        cards: its GPUs.
        driver: release or branch that it will have.
        probe: what the host is.
    """
    if settings.state == "absent":
        there = tuple(sorted(name for name in probe.packages if name.startswith("datacenter-gpu-manager")))
        return BurnInPlan(None, packages=there, needed=bool(there) or RESULT in probe.paths)
    if settings.level is None or not cards or driver is None:
        return None
    level = min(settings.level, 1) if any(not card.datacenter for card in cards) else settings.level
    gpus = tuple(f"{device.address} {device.device_id}" for device in probe.gpus)
    needed = not _passed(probe, level, gpus)
    holders = [holder for holder in probe.gpu_holders if not _DAEMONS.search(holder)]
    in_use = f"the GPUs are in use by {', '.join(holders)}" if holders else ""
    return BurnInPlan(level, packages(driver, cards), gpus, needed, in_use if needed else "")


def packages(driver: str, cards: tuple[Gpu, ...]) -> tuple[str, ...]:
    """DCGM for the CUDA of this driver and these cards, with the tests that NVIDIA packs apart.

    Source: installation page of DCGM; the second package is only recommended by the first.
    """
    major = compat.branch_of(driver).cuda.partition(".")[0]
    if int(major) >= 13 and oldest(cards).capability < _FIRST_OF_CUDA_13:
        major = "12"
    return (f"datacenter-gpu-manager-4-cuda{major}", f"datacenter-gpu-manager-4-proprietary-cuda{major}")


def warnings(settings: BurnIn, plan: BurnInPlan | None, cards: Iterable[Gpu], probe: Probe) -> Iterator[str]:
    """What the operator should know: a lower level than asked for, a test that waits, what was found."""
    if plan is None or plan.level is None:
        return
    if settings.level != plan.level:
        name = next(card.name for card in cards if not card.datacenter)
        yield f"burn_in.level: DCGM tests {name} at level 1 only, so level {settings.level} is not run."
    if plan.waits:
        yield f"burn_in: the diagnostic waits: {plan.waits}. Stop that, and run again."
    if not plan.needed:
        yield from read(probe.burn_in).warnings


def refusals(plan: BurnInPlan | None, probe: Probe) -> Iterator[str]:
    """Why nothing is served from these GPUs: some of them failed, and the test cannot be repeated now."""
    recorded = set(_loaded(probe.burn_in).get("gpus") or ())
    failed = read(probe.burn_in).failures if plan and recorded & set(plan.gpus) else ()
    if plan and plan.waits and failed:
        words = failed[0].removeprefix("burn-in: ").rstrip(".")
        yield (
            f"burn_in: the diagnostic failed ({words}), and cannot run again: {plan.waits}. "
            "Stop that, and run again."
        )


def _passed(probe: Probe, level: int, gpus: tuple[str, ...]) -> bool:
    """Whether these GPUs have passed this level, or a higher one, with this driver."""
    said = _loaded(probe.burn_in)
    same = (said.get("driver"), said.get("gpus")) == (probe.driver, list(gpus))
    return same and int(said.get("level") or 0) >= level and not read(probe.burn_in).failures


def read(text: str) -> Findings:
    """What a recorded diagnostic found; a record without a result is a failure."""
    said = _loaded(text)
    result = said.get("result")
    if not isinstance(result, dict):
        words = str(said.get("words") or "nothing").strip()
        return Findings(
            (f"burn-in: dcgmi gave no result, but: {words}. See `journalctl -u nvidia-dcgm`.",), ()
        )
    root = result.get("DCGM Diagnostic") or result.get("DCGM GPU Diagnostic") or {}
    failures: list[str] = []
    settings: list[str] = []
    if error := root.get("runtime_error"):
        failures.append(f"burn-in: the diagnostic did not run: {error}")
    for name, entry in _results(root):
        if not str(entry.get("status", "")).lower().startswith("fail"):
            continue
        for words, severity in _words(entry):
            sentence = f"burn-in: {name} failed on {_entity(entry)}: {words}"
            (settings if severity == _SETTING else failures).append(sentence)
    return Findings(tuple(dict.fromkeys(failures)), tuple(dict.fromkeys(settings)))


def _loaded(text: str) -> Mapping[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _results(root: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every result with its test's name; older versions put nulls between the tests."""
    for category in root.get("test_categories") or ():
        for test in category.get("tests") or ():
            for entry in (test or {}).get("results") or ():
                yield str(test.get("name", "a test")), entry


def _entity(entry: Mapping[str, Any]) -> str:
    """ "GPU 3"; version 3 says `gpu_ids`, version 4 the kind and number of what was tested."""
    if "gpu_ids" in entry:
        return f"GPU {entry['gpu_ids']}"
    return f"{entry.get('entity_group', 'GPU')} {entry.get('entity_id', '?')}"


def _words(entry: Mapping[str, Any]) -> Iterator[tuple[str, int | None]]:
    found = entry.get("warnings") or entry.get("info") or ["without a word"]
    for said in found if isinstance(found, list) else [found]:
        if isinstance(said, dict):
            yield str(said.get("warning", "without a word")).strip(), said.get("error_severity")
        else:
            yield str(said).strip(), None
