"""Where a model may come from, and which commit a revision is there: addresses and answers, no I/O.

A place is written as KIND+ADDRESS, or as a plain http(s) URL for a ModelScope endpoint:

    modelscope+https://www.modelscope.cn   a ModelScope hub
    huggingface+https://hf-mirror.com      the Hugging Face hub or a mirror of its API
    mirror+https://files.example/models    a web server over a /srv/models that bringup made
    host:/mnt/models                       a directory on the host, NFS for instance: ORG/NAME below it
    operator:~/models                      a directory on the operator's machine, uploaded: ORG/NAME below it
"""

import json
import re
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from plan.probe_models import MANIFEST

COMMIT = re.compile(r"[0-9a-f]{40}")
HUBS = ("modelscope", "huggingface", "mirror")
# The name of the default branch where it is another than ModelScope's.
DEFAULT_BRANCH = {"modelscope": "master", "huggingface": "main", "mirror": "current"}


@dataclass(frozen=True)
class Place:
    """`address` is a URL without a closing slash, or a path."""

    kind: str
    address: str

    @property
    def on_the_net(self) -> bool:
        """Whether it is asked by HTTP."""
        return self.kind in HUBS

    def __str__(self) -> str:
        return (
            self.address if self.kind == "modelscope" else f"{self.kind}{':+'[self.on_the_net]}{self.address}"
        )


def place(text: str) -> Place:
    """The place that a setting names; its form was checked by the settings."""
    if text.startswith(("http://", "https://")):
        return Place("modelscope", text.rstrip("/"))
    kind, _, address = re.split(r"([+:])", text, maxsplit=1)
    return Place(kind, address if address == "/" else address.rstrip("/"))


def branch(place: Place, revision: str) -> str:
    """What the revision is called there: only the default branch has another name."""
    return DEFAULT_BRANCH[place.kind] if revision == "master" else revision


def question(place: Place, model: str, revision: str) -> str:
    """The URL whose answer holds the commit of a revision.

    Source: ModelScope's own client (commit history of a repository, newest first) and Hugging Face's hub API.
    """
    name = quote(branch(place, revision), safe="")
    if place.kind == "modelscope":
        query = urlencode({"Ref": revision, "PageNumber": 1, "PageSize": 1})
        return f"{place.address}/api/v1/models/{model}/commits?{query}"
    if place.kind == "huggingface":
        return f"{place.address}/api/models/{model}/revision/{name}"
    return f"{place.address}/{model}/{name}/{MANIFEST}"


def commit(place: Place, text: str) -> str | None:
    """The commit that an answer names; None when it is no such answer."""
    try:
        answer = json.loads(text)
        found = {
            "modelscope": lambda: answer["Data"]["Commit"][0]["Id"],
            "huggingface": lambda: answer["sha"],
            "mirror": lambda: answer["commit"],
        }[place.kind]()
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return found if isinstance(found, str) and COMMIT.fullmatch(found) else None
