"""What the journal of a service that does not serve means, and the setting to change."""

import functools
import re
from dataclasses import dataclass

from plan import tables


@dataclass(frozen=True)
class Failure:
    """One row of the table: a sign in the journal, what it means, a line as printed, and where.

    `behind` is what it means of a service behind the front, where that is something else: its `port` is the
    front's, and the engine's own is in no setting.
    """

    sign: str
    says: str
    example: str
    source: str
    behind: str = ""


@functools.cache
def known() -> tuple[Failure, ...]:
    """All rows, special ones before general ones."""
    return tuple(Failure(**row) for row in tables.read("failures")["failure"])


def explain(journal: str, setting: str, fronted: bool = False) -> str | None:
    """The sentence for the first sign that a journal has; None when none is known.

    Args:
        journal: the newest lines of the service.
        setting: the service's own settings, such as `serve.chat`.
        fronted: whether it stands behind the front.
    """
    for failure in known():
        if re.search(failure.sign, journal, flags=re.IGNORECASE):
            says = failure.behind if fronted and failure.behind else failure.says
            return says.format(serve=setting)
    return None
