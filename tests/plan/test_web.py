"""Requests of the operator's machine under the proxies that desktops and their users set."""

import pytest

from ops import pins
from plan import web
from plan.errors import PlanError
from plan.places import Place
from plan.tokens import Tokens


@pytest.fixture(autouse=True)
def _no_other_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in web.PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "socks5h://127.0.0.1:9"])
def test_proxies_of_the_usual_kinds_are_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with web.client():
        pass


def test_a_proxy_that_is_none_is_named_and_the_host_is_asked_in_its_stead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:7890/")
    with pytest.raises(PlanError, match=r"^ALL_PROXY: is no proxy that can be used\."):
        web.client()
    answer = pins._ask(Place("modelscope", "https://hub.example"), "Org/Name", "master", Tokens())
    assert answer.silent and "ALL_PROXY" in answer.word
