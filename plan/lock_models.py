"""What the lock says of a model: the commit, and every file with its hash, as the hub lists them."""

import re

from pydantic import ValidationError

from plan.errors import PlanError
from plan.host import HostPlan
from plan.hub import Hub
from plan.lock import File, Model
from plan.locking import model_key
from plan.places import place
from plan.tokens import Tokens

# A hub's own bookkeeping, which no download brings.
_NOT_DOWNLOADED = re.compile(r"\.(gitattributes|gitignore)$")


def listed(plan: HostPlan, name: str, given: Tokens) -> Model:
    """A model of a plan, by its name in the lock; `given` lets us in where its hub asks for a token.

    Raises:
        TokenError: its hub asks for a token, or for another one.
        PlanError: its hub cannot be reached, or does not list it.
    """
    model = next(one for one in plan.models if model_key(one.model, one.revision) == name)
    hub_of = place(model.endpoint)
    headers = given.headers(hub_of.kind)
    with Hub(hub_of, model.revision, headers) as hub:
        commit = model.commit or hub.commit(model.model)
    with Hub(hub_of, commit, headers) as hub:
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
