"""Lines of a batch in OpenAI's format: requests, and answers to them, one JSON object a line.

Runs on hosts too, beside the program that answers them: nothing but the standard library.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
FAILED_FROM = 400


@dataclass(frozen=True)
class Request:
    """One request: `custom_id` is the asker's own name for it, `body` what `url` is sent."""

    custom_id: str
    url: str
    body: dict[str, Any]

    @property
    def digest(self) -> str:
        """Tells it from another one of the same `custom_id`."""
        text = json.dumps([self.url, self.body], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


@dataclass(frozen=True)
class Answered:
    """What an answer tells of its request: its name, its digest, and whether all went well."""

    custom_id: str
    digest: str
    well: bool


def requests(lines: Iterable[bytes]) -> Iterator[Request]:
    """The requests of a file, empty lines left out.

    Raises:
        ValueError: a line is no request, or its `custom_id` is an earlier one's; which line, and what to do.
    """
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = _request(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if found.custom_id in seen:
            raise ValueError(
                f"line {number}: custom_id {found.custom_id!r} is there twice. Name it otherwise"
            )
        seen.add(found.custom_id)
        yield found


def _request(line: bytes) -> Request:
    try:
        raw = json.loads(line)
    except ValueError:
        raise ValueError("is no JSON. Write one object a line") from None
    if not isinstance(raw, dict):
        raise ValueError("is no JSON object. Write one object a line")
    custom_id, url, body = raw.get("custom_id"), raw.get("url"), raw.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        raise ValueError("has no custom_id. Give each request a name of its own")
    if raw.get("method", "POST") != "POST":
        raise ValueError(f"method {raw['method']!r} is not answered. Write POST")
    if url not in ENDPOINTS:
        raise ValueError(f"url {url!r} is not answered. Write one of {', '.join(ENDPOINTS)}")
    if not isinstance(body, dict):
        raise ValueError("has no body. Write the request's JSON object there")
    return Request(custom_id, url, body)


def answer(request: Request, status: int, body: Any) -> bytes:
    """The line that answers a request: what the server said, and with which HTTP status."""
    said = body if isinstance(body, dict) else {"message": str(body)}
    failed = said.get("error", said) if status >= FAILED_FROM else None
    line = {
        "id": request.digest,
        "custom_id": request.custom_id,
        "response": {"status_code": status, "request_id": said.get("id"), "body": said},
        "error": failed,
    }
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def answered(line: bytes) -> Answered | None:
    """What a line of answers tells; None when it was torn, or is none."""
    try:
        raw = json.loads(line)
        found = Answered(raw["custom_id"], raw["id"], raw["error"] is None)
    except (ValueError, KeyError, TypeError):
        return None
    whole = line.endswith(b"\n") and isinstance(found.custom_id, str) and isinstance(found.digest, str)
    return found if whole else None
