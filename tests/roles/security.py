"""What systemd itself thinks of a unit's confinement."""

import re
import subprocess
from pathlib import Path


def exposure(path: Path) -> float:
    """systemd's figure from 0 (closed) to 10 (open) for a unit file, as `systemd-analyze security` counts."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for \S+ (\d+\.\d)", done.stdout)
    assert found, done.stdout
    return float(found[1])
