"""What the lock says of a model: the commit, and every file with its hash, as the hub lists them."""

import re

from pydantic import ValidationError

from plan.errors import PlanError
from plan.host import HostPlan
from plan.hub import Hub
from plan.lock import File, Model
from plan.locking import model_key
from plan.places import place

# A hub's own bookkeeping, which no download brings.
_NOT_DOWNLOADED = re.compile(r"\.(gitattributes|gitignore)$")


def listed(plan: HostPlan, name: str) -> Model:
    """A model of a plan, by its name in the lock.

    Raises:
        PlanError: its hub cannot be reached, or does not list it.
    """
    model = next(one for one in plan.models if model_key(one.model, one.revision) == name)
    with Hub(place(model.endpoint), model.revision) as hub:
        commit = model.commit or hub.commit(model.model)
    with Hub(place(model.endpoint), commit) as hub:
        rows = hub.files(model.model)
    try:
        files = {
            row["Path"]: File(size=row["Size"], sha256=row.get("Sha256") or None)
            for row in sorted(rows, key=lambda row: str(row["Path"]))
            if not _NOT_DOWNLOADED.search(row["Path"])
        }
        return Model(made_by=f"file list of {model.endpoint}", commit=commit, files=files)
    except (KeyError, TypeError, ValidationError):
        raise PlanError(
            [f"{model.endpoint}: its file list of {model.model} lacks sizes or hashes."]
        ) from None
