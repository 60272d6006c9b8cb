"""How long a model's start may take: the bound of a wait, not what it takes."""

from plan.probe import Probe

# Imports, compiling, capturing graphs.
SERVER_SECONDS = 600
# Reading weights: 85 MB/s from turning disks and from what is not known, 250 MB/s from the slowest others.
TURNING_SECONDS_PER_GIB, OTHER_SECONDS_PER_GIB = 12, 4


# A model that is in no table: 250 GiB from turning disks. Not from its files, once they are there: the unit
# would change with them, and the service start anew.
UNKNOWN_SECONDS = 3600


def timeout_seconds(weights_gib: float | None, probe: Probe) -> int:
    """The bound for a model of that size, None where nobody knows it, on this host's disks."""
    if weights_gib is None:
        return UNKNOWN_SECONDS
    turning = probe.disks_turn is not False
    return SERVER_SECONDS + int(weights_gib * (TURNING_SECONDS_PER_GIB if turning else OTHER_SECONDS_PER_GIB))
