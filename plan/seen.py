"""What a look at an inventory brings home: per host its settings, its probe's text, what was read of models.

`roles/host/look.py` writes one JSON file a host; whoever keeps such a folder can plan without the hosts.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plan import model_facts, settings
from plan.decide import plan_host
from plan.errors import PlanError, SettingsError
from plan.host import HostPlan
from plan.model_facts import Facts
from plan.probe import Probe, parse
from plan.settings import Settings


@dataclass(frozen=True)
class Seen:
    """One host.

    Attributes:
        data: its settings, merged; none of pyinfra's own data, which may hold passwords.
        probe: the probe's text.
        facts: of models that are in no table, as the host keeps them; empty: what the probe says.
        problems: why nothing can be planned for it, in sentences.
        packages: what its package manager said of what roles install; empty: it was not asked.
        driver: what it said of the driver's packages; empty: it was not asked.
    """

    host: str
    data: Mapping[str, Any]
    probe: str = field(repr=False)
    facts: str = ""
    problems: tuple[str, ...] = ()
    packages: str = field(default="", repr=False)
    driver: str = field(default="", repr=False)

    def save(self, folder: Path) -> None:
        """Writes it down; only its owner may read it."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", self.host)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self), indent=1, default=str))

    def settings(self) -> Settings:
        """Its settings, validated."""
        return settings.read([self.data])

    def parsed(self) -> Probe:
        """Its probe."""
        return parse(self.probe)

    def plan(self, wanted: Settings) -> HostPlan:
        """Its plan with these settings, as a deploy would make it.

        Raises:
            PlanError: there is none.
        """
        if self.problems:
            raise PlanError(list(self.problems))
        probe = self.parsed()
        return plan_host(self.host, wanted, probe, self._facts(probe))

    def _facts(self, probe: Probe) -> Facts:
        return model_facts.read(self.facts) if self.facts else model_facts.kept(probe)


def load(folder: Path) -> list[Seen]:
    """The hosts of a folder, by name.

    Raises:
        SettingsError: there are none, or a file is no such record.
    """
    found = [_read(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise SettingsError([f"{folder}: has no saved probes (*.json). Name a folder that has some."])
    return sorted(found, key=lambda seen: seen.host)


def _read(path: Path) -> Seen:
    try:
        raw = json.loads(path.read_text())
        return Seen(**raw | {"problems": tuple(raw.get("problems", ()))})
    except (OSError, ValueError, TypeError, AttributeError):
        raise SettingsError([f"{path}: is no saved probe. Remove it, or save it again."]) from None
