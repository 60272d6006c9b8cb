"""A model's facts from its hub, without its weights: config.json and safetensors headers, by HTTP range."""

import re
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from plan import checkpoint, places, web
from plan.errors import PlanError
from plan.models import ModelFacts
from plan.places import Place
from plan.probe_models import MANIFEST

DEFAULT_ENDPOINT = "https://www.modelscope.cn"
DEFAULT_REVISION = "master"
_TIMEOUT_SECONDS = 20.0
# Headers are tens of kilobytes: the first range usually has all of one.
_FIRST_RANGE_BYTES = 262_144
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def is_model_id(text: str) -> bool:
    """Whether a text is a hub id, `organisation/name`, without signs that a shell or URL would read."""
    return bool(_ID.fullmatch(text))


class TokenError(PlanError):
    """A hub that asks for a token, or for another one."""


class Hub:
    """A hub of models, ModelScope's unless said otherwise. Use it as a context manager."""

    def __init__(
        self,
        place: str | Place = DEFAULT_ENDPOINT,
        revision: str = DEFAULT_REVISION,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`headers` go to the hub, and to nobody that it sends us on to."""
        self._place = Place("modelscope", place.rstrip("/")) if isinstance(place, str) else place
        self._kind, self._endpoint = self._place.kind, self._place.address
        self._revision, self._headers_sent = revision, dict(headers or {})
        self._client = web.client(timeout=_TIMEOUT_SECONDS)

    def __enter__(self) -> "Hub":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def facts(self, model_id: str) -> ModelFacts:
        """The facts of a model.

        Raises:
            PlanError: the hub cannot be reached, has no such model, or its files are no such model.
        """
        if not is_model_id(model_id):
            raise PlanError([f"{model_id!r} is no hub id. Write it as organisation/name."])
        names = [file["Path"] for file in self.files(model_id)]
        weights = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
        if not weights:
            raise PlanError([f"{model_id}: {self._endpoint} has no *.safetensors of it."])
        where = f"{self._endpoint}: {model_id}/config.json"
        config = checkpoint.parse_config(self._fetch(model_id, "config.json").decode(), where)
        return checkpoint.facts(model_id, config, self._headers(model_id, weights), self._endpoint)

    def _headers(self, model_id: str, names: list[str]) -> Iterator[checkpoint.Header]:
        for name in names:
            where = f"{self._endpoint}: {model_id}/{name}"
            start = self._fetch(model_id, name, 0, _FIRST_RANGE_BYTES)
            length = checkpoint.header_length(start[: checkpoint.LENGTH_BYTES], where)
            end = checkpoint.LENGTH_BYTES + length
            if end > len(start):
                start += self._fetch(model_id, name, len(start), end)
            yield checkpoint.parse_header(start[checkpoint.LENGTH_BYTES : end], where)

    def files(self, model_id: str) -> list[dict[str, Any]]:
        """The files of a model as the hub lists them: `Path`, `Size`, `Sha256`.

        Raises:
            PlanError: the hub cannot be reached, or has no such model.
        """
        revision = quote(self._revision, safe="")
        query = urlencode({"Revision": self._revision, "Recursive": "True"})
        url: str | None = (
            self._endpoint
            + {
                "modelscope": f"/api/v1/models/{model_id}/repo/files?{query}",
                "huggingface": f"/api/models/{model_id}/tree/{revision}?recursive=true",
                "mirror": f"/{model_id}/{revision}/{MANIFEST}",
            }[self._kind]
        )
        files: list[dict[str, Any]] = []
        while url:
            response = self._get(url, model_id)
            try:
                files += _rows(self._kind, response.json())
            except (ValueError, KeyError, TypeError, AttributeError):
                raise PlanError([f"{self._endpoint}: its file list of {model_id} is no such list."]) from None
            url = response.links.get("next", {}).get("url")
        return files

    def _url(self, model_id: str, path: str) -> str:
        """Of a file."""
        if self._kind == "modelscope":
            query = urlencode({"Revision": self._revision, "FilePath": path})
            return f"{self._endpoint}/api/v1/models/{model_id}/repo?{query}"
        resolve = "/resolve" if self._kind == "huggingface" else ""
        return f"{self._endpoint}/{model_id}{resolve}/{quote(self._revision, safe='')}/{quote(path)}"

    def commit(self, model_id: str) -> str:
        """The commit that the revision is now.

        Raises:
            PlanError: the hub cannot be reached, or does not say.
        """
        question = places.question(self._place, model_id, self._revision)
        found = places.commit(self._place, self._get(question, model_id).text)
        if found is None:
            raise PlanError(
                [f"{self._endpoint}: does not say which commit {self._revision} of {model_id} is."]
            )
        return found

    def _fetch(self, model_id: str, path: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end` (exclusive) of a file; a server that ignores ranges is cut off."""
        headers = {"Range": f"bytes={start}-{end - 1}"} if end is not None else {}
        url = self._url(model_id, path)
        try:
            with self._client.stream("GET", url, headers=headers | self._headers_sent) as response:
                self._check(response, model_id)
                skip = start if response.status_code == httpx.codes.OK else 0
                return _take(response, skip, None if end is None else end - start)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _get(self, url: str, model_id: str) -> httpx.Response:
        try:
            response = self._client.get(url, headers=self._headers_sent)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        self._check(response, model_id)
        return response

    def _check(self, response: httpx.Response, model_id: str) -> None:
        if response.status_code == httpx.codes.NOT_FOUND:
            raise PlanError([f"{self._endpoint} has no {model_id} at revision {self._revision}."])
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            token = "huggingface_token_file" if self._kind == "huggingface" else "token_file"
            raise TokenError(
                [
                    f"{self._endpoint} lets nobody read {model_id} without the right token. "
                    f"Set models.{token} to a file that holds it."
                ]
            )
        if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise PlanError([f"{self._endpoint} answered {response.status_code} for {model_id}."])

    def _unreachable(self, error: httpx.HTTPError) -> PlanError:
        return PlanError([f"{self._endpoint} cannot be reached ({error}). Name a hub that answers."])


def _rows(kind: str, answer: Any) -> list[dict[str, Any]]:
    """The files in an answer, in ModelScope's words."""
    if kind == "modelscope":
        return [file for file in answer["Data"]["Files"] if file.get("Type") != "tree"]
    if kind == "mirror":
        return [
            {"Path": path, "Size": file["size"], "Sha256": file["sha256"]}
            for path, file in answer["files"].items()
        ]
    return [
        {
            "Path": file["path"],
            "Size": (file.get("lfs") or file)["size"],
            "Sha256": (file.get("lfs") or {}).get("oid"),
        }
        for file in answer
        if file["type"] == "file"
    ]


def _take(response: httpx.Response, skip: int, count: int | None) -> bytes:
    taken = bytearray()
    for chunk in response.iter_bytes():
        taken += chunk
        if count is not None and len(taken) >= skip + count:
            break
    return bytes(taken[skip:] if count is None else taken[skip : skip + count])
