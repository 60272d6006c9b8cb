"""How long a model's start may take: the bound of a wait, not what it takes."""

from plan.probe import Probe

# Imports, compiling, capturing graphs.
SERVER_SECONDS = 600
# Reading weights: 85 MB/s from turning disks and from what is not known, 250 MB/s from the slowest others.
TURNING_SECONDS_PER_GIB, OTHER_SECONDS_PER_GIB = 12, 4


def timeout_seconds(weights_gib: float, probe: Probe) -> int:
    """The bound for a model of that size on this host's disks."""
    turning = probe.disks_turn is not False
    return SERVER_SECONDS + int(weights_gib * (TURNING_SECONDS_PER_GIB if turning else OTHER_SECONDS_PER_GIB))
