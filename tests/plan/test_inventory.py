"""Inventories that pyinfra would misread are told from those that it takes as they are meant."""

from typing import Any

import pytest

from plan import inventory

ONE: dict[str, Any] = {"serve": {"a": {}}}
OTHER: dict[str, Any] = {"serve": {"b": {}}}


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({"chat": ("gpu-01", ONE)}, "chat: ('gpu-01', "),
        # to pyinfra a tuple is a group with its data
        ({"chat": ("gpu-01", "gpu-02")}, "chat: ('gpu-01', 'gpu-02') is no list of hosts."),
        ({"chat": ["gpu-01", ONE]}, "chat: {'serve': {'a': {}}} is no host."),
        ({"chat": [["gpu-01", ONE]]}, "chat: ['gpu-01', "),
        ({"chat": [("gpu-01", "a")]}, "chat: ('gpu-01', 'a') is no host."),
        ({"chat": [], "MODEL": "Qwen/Qwen3-8B", "_old": ["gpu-01"]}, "it names no host."),
        (
            {"chat": [("gpu-01", ONE)], "code": [("gpu-01", OTHER)]},
            "gpu-01 stands in chat and in code, each time with another `serve`",
        ),
        ({"chat": [("gpu-01", ONE), ("gpu-01", OTHER)]}, "gpu-01 stands twice in chat"),
        ({"chat": ([("gpu-01", ONE), ("gpu-01", OTHER)], {"x": 1})}, "gpu-01 stands twice in chat"),
    ],
)
def test_what_would_lose_hosts_or_settings_is_told(names: dict[str, Any], sentence: str) -> None:
    (fault,) = inventory.faults(names)
    assert fault.startswith(sentence)


@pytest.mark.parametrize(
    "names",
    [
        {"all": [("gpu-01", ONE)], "chat": ["gpu-01"]},
        {"chat": [("gpu-01", ONE)], "rack1": [("gpu-01", {"driver": {}})]},
        {"chat": [("gpu-01", ONE)], "same": [("gpu-01", ONE)]},
        {"chat": (["gpu-01"], ONE), "empty": []},
    ],
)
def test_what_pyinfra_takes_as_it_is_meant_is_no_fault(names: dict[str, Any]) -> None:
    assert inventory.faults(names) == []
