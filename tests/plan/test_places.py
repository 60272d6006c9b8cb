"""A place is asked in its own words, and only a whole commit counts as an answer."""

import json

import pytest

from plan import places
from plan.places import Place, place
from plan.sections import Sources
from plan.settings import read

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("https://www.modelscope.cn/", "modelscope", "https://www.modelscope.cn"),
        ("modelscope+https://www.modelscope.ai", "modelscope", "https://www.modelscope.ai"),
        ("huggingface+https://hf-mirror.com", "huggingface", "https://hf-mirror.com"),
        ("mirror+http://files.example:8080/models", "mirror", "http://files.example:8080/models"),
        ("host:/mnt/models/", "host", "/mnt/models"),
        ("operator:~/models", "operator", "~/models"),
    ],
)
def test_a_place_is_read_from_the_settings_and_written_back(text: str, kind: str, address: str) -> None:
    assert read([{"sources": {"models": [text]}}]).sources == Sources(models=[text])
    assert place(text) == Place(kind, address)
    assert place(str(place(text))) == place(text)


@pytest.mark.parametrize(
    ("kind", "revision", "url"),
    [
        ("modelscope", "master", "/api/v1/models/a/b/commits?Ref=master&PageNumber=1&PageSize=1"),
        ("modelscope", "f/x", "/api/v1/models/a/b/commits?Ref=f%2Fx&PageNumber=1&PageSize=1"),
        ("huggingface", "master", "/api/models/a/b/revision/main"),
        ("huggingface", "f/x", "/api/models/a/b/revision/f%2Fx"),
        ("mirror", "master", "/a/b/current/.bringup.json"),
        ("mirror", "v1", "/a/b/v1/.bringup.json"),
    ],
)
def test_a_revision_is_asked_for_in_the_words_of_the_place(kind: str, revision: str, url: str) -> None:
    assert places.question(Place(kind, "https://x.example"), "a/b", revision) == f"https://x.example{url}"


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("modelscope", {"Code": 200, "Success": True, "Data": {"Commit": [{"Id": COMMIT}]}}),
        ("huggingface", {"sha": COMMIT, "id": "a/b"}),
        ("mirror", {"commit": COMMIT, "files": {}}),
    ],
)
def test_the_commit_is_found_in_the_answer_of_the_place(kind: str, answer: object) -> None:
    assert places.commit(Place(kind, ""), json.dumps(answer)) == COMMIT
    assert places.commit(Place(kind, ""), json.dumps(answer).replace(COMMIT, COMMIT[:8])) is None


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", '{"Data": {"Commit": []}}', '{"sha": 7}'])
@pytest.mark.parametrize("kind", places.HUBS)
def test_anything_else_is_no_commit(kind: str, text: str) -> None:
    assert places.commit(Place(kind, ""), text) is None
