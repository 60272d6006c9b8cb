"""The stamp: what the last whole deploy made of a host, kept there so that later differences have a cause.

Two files that root alone reads. `plan.json` is what the deploy meant: it changes when the settings do, or
this program. `state` is what the host was when the deploy ended, as the probe sees it, where no plan pins it:
kernel, driver, packages of the distribution, locks. Neither holds a secret: of a file that others may not
read only mode and owner are kept.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from plan.host import HostPlan
from plan.probe import Probe

FILE = "/etc/bringup/plan.json"
STATE_FILE = "/etc/bringup/state"
# What follows from a moment rather than from the settings: what is still to be removed, reasons, figures, and
# what the host is called.
_OF_THE_MOMENT = frozenset(
    {
        "host",
        "wanted",
        "fingerprint",
        "renew",
        "why",
        "warnings",
        "driver",
        "hardware",
        "os",
        "memory",
        "replacing",
    }
)


@dataclass(frozen=True)
class StampedFile:
    """A file as the deploy left it. `text` and `sha256`: None when others than its owner may not read it."""

    mode: str
    owner: str
    sha256: str | None
    text: str | None


@dataclass(frozen=True)
class Stamp:
    """What a deploy meant.

    Attributes:
        version: of this program.
        time: when it was first meant, UTC, ISO 8601; a run that changes nothing keeps it.
        settings: digest of the settings, which hold no secret.
        plan: the host's plan, without what follows from the moment.
        files: path -> the file as it was written.
        lock: digest of the host's part of the lock; empty where the plan was held to none.
    """

    version: str
    time: str
    settings: str
    plan: Mapping[str, Any]
    files: Mapping[str, StampedFile]
    lock: str = ""

    def text(self) -> str:
        """The file's content: `time` stands on a line of its own, where the probe finds it."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def parse(text: str) -> Stamp | None:
    """The stamp from the file's content; None when it is none."""
    try:
        raw = json.loads(text)
        files = {path: StampedFile(**entry) for path, entry in raw.pop("files").items()}
        return Stamp(**raw, files=files)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def lasting(plan: HostPlan) -> dict[str, Any]:
    """The part of a plan that a second run decides alike."""
    kept: dict[str, Any] = _without_moment(json.loads(plan.to_json()))
    return kept


def _without_moment(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_moment(part)
            for name, part in value.items()
            if name not in _OF_THE_MOMENT and not name.startswith("removed_")
        }
    return [_without_moment(part) for part in value] if isinstance(value, list) else value


def state(probe: Probe, packages: Iterable[str]) -> str:
    """The state file's content for a host that is as the probe saw it. `state_script` writes the same.

    Args:
        probe: the host.
        packages: distribution packages that the plan asks for.
    """
    return "".join(f"{line}\n" for line in sorted(_state(probe, packages)))


def _state(probe: Probe, packages: Iterable[str]) -> Iterator[str]:
    yield f"kernel {probe.kernel}"
    yield f"driver {probe.driver or '-'}"
    for name in set(packages):
        if name in probe.packages:
            yield f"package {name} {probe.packages[name]}"
    for path, seen in probe.paths.items():
        if _is_lock(path) and seen.sha256:
            yield f"lock {path} {seen.sha256}"


def _is_lock(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder.startswith("/etc/bringup/environments/") and name.startswith("requirements-")


def state_lines(text: str) -> dict[tuple[str, str], str]:
    """(kind, name) -> value of a state file; `kernel` and `driver` have no name."""
    found = {}
    for line in text.splitlines():
        kind, *rest = line.split()
        if rest:
            found[kind, " ".join(rest[:-1])] = rest[-1]
    return found
