"""What the torch check wrote down on a host: figures of every GPU, and what lies below its floor."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figures:
    """One check. `driver` is the one that it ran on; `devices` have `device`, `name`, `tflops` and more."""

    driver: str | None
    devices: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]

    def outdated(self, driver: str | None, gpus: int) -> bool:
        """Whether the host has another driver or another number of GPUs by now."""
        counted = sum(str(device.get("device", "")).startswith("cuda") for device in self.devices)
        return counted != gpus or (None not in (driver, self.driver) and driver != self.driver)


def parse(text: str) -> Figures | None:
    """Reads what the check printed; None where it is something else, and the check is made again."""
    try:
        said = json.loads(text)
        devices = tuple(dict(device) for device in said["devices"])
    except (ValueError, KeyError, TypeError):
        return None
    warnings = said.get("warnings") or ()
    driver = said.get("driver")
    return Figures(
        driver if isinstance(driver, str) else None,
        devices,
        tuple(warning for warning in warnings if isinstance(warning, str)),
    )


def warnings(checks: Mapping[str, str], directory: str) -> Iterator[str]:
    """What the checks of the environment whose files lie in `directory` warn of."""
    for path, text in checks.items():
        if path.startswith(f"{directory}/") and (found := parse(text)):
            yield from found.warnings
