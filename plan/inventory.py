"""What is wrong with an inventory in pyinfra's form, which it would misread without a word."""

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any


def groups(names: Mapping[str, Any]) -> dict[str, list[Any] | tuple[list[Any], dict[str, Any]]]:
    """The groups among the names of an inventory file: lists of hosts, or such a list with shared data."""
    return {
        name: value
        for name, value in names.items()
        if not name.startswith("_") and isinstance(value, list | tuple)
    }


def faults(names: Mapping[str, Any]) -> list[str]:
    """Sentences about groups that are none, and hosts whose settings stand twice.

    Args:
        names: those of the inventory file and their values, a group `[HOST, (HOST, {settings}), ...]`.
    """
    found = groups(names)
    wrong = [fault for name, value in found.items() for fault in _misshapen(name, value)]
    if not any(_hosts(value) for value in found.values()):
        wrong.append("it names no host. Write a group, as chat = ['gpu-01', 'gpu-02'].")
    return wrong or list(_twice(found))


def _misshapen(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, tuple) and not _with_data(value):
        yield f"{name}: {reprlib.repr(value)} is no list of hosts. Write {name} = [('NAME', {{settings}})]."
        return
    for entry in _hosts(value):
        if not isinstance(entry, str) and not _settled(entry):
            yield (
                f"{name}: {reprlib.repr(entry)} is no host. Write 'NAME' or ('NAME', {{settings}}), "
                "in parentheses."
            )


def _with_data(value: tuple[Any, ...]) -> bool:
    """Whether it is a list of hosts with the settings that they share."""
    return len(value) == 2 and isinstance(value[0], list | tuple) and isinstance(value[1], dict)


def _settled(entry: Any) -> bool:
    return (
        isinstance(entry, tuple)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], dict)
    )


def _hosts(value: Any) -> list[Any] | tuple[Any, ...]:
    hosts: list[Any] | tuple[Any, ...] = value[0] if isinstance(value, tuple) and _with_data(value) else value
    return hosts


def _twice(found: Mapping[str, Any]) -> Iterator[str]:
    """Settings of one host that two entries give: pyinfra takes the last."""
    seen: dict[tuple[str, str], tuple[str, Any]] = {}
    for group, value in found.items():
        for entry in _hosts(value):
            host, settings = (entry, {}) if isinstance(entry, str) else entry
            for setting, wanted in settings.items():
                where, first = seen.setdefault((host, setting), (group, wanted))
                if first != wanted:
                    groups = f"twice in {group}" if where == group else f"in {where} and in {group}"
                    yield (
                        f"{host} stands {groups}, each time with another `{setting}`, of which one would be "
                        "lost. Write its settings once."
                    )
