"""Every decision over a grid of hosts, judged by the tables alone.

The judge below reads the TOML itself and states each rule once more, without the resolver's code: a decision
must break none of them, anything newer must break one or be less preferred, and a refusal must leave nothing
standing.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import plan
from plan.answer import Decision, Machine, Policy, Wish
from plan.gpus import lookup
from plan.resolve import decide_once

TABLES = Path(plan.__file__).parent


def table(name: str) -> dict[str, Any]:
    return tomllib.loads((TABLES / f"{name}.toml").read_text())


CUDA = {row["version"]: row for row in table("compat-cuda")["cuda"]}
BRANCHES = sorted(table("compat-cuda")["branch"], key=lambda row: row["branch"])
TORCH = {row["version"]: row for row in table("compat-torch")["torch"]}
TRITON = table("compat-torch")["triton"]
VLLM = table("compat-vllm")
SYSTEMS = {row["name"]: row for row in table("compat-systems")["system"]}

GPUS = (
    "GTX 980 Ti",
    "GTX 1080 Ti",
    "V100 32GB",
    "T4",
    "A100 80GB",
    "RTX 3090",
    "L40S",
    "H100",
    "H200",
    "B200",
    "B300",
    "RTX 5090",
    "RTX PRO 6000 Server",
)
DRIVERS = (
    None,
    "450.80.02",
    "470.256.02",
    "515.105.01",
    "525.60.13",
    "530.30.02",
    "535.104.05",
    "545.23.08",
    "550.127.05",
    "560.35.05",
    "570.124.06",
    "575.57.08",
    "580.95.05",
    "590.48.01",
    "595.58.03",
    "610.43.02",
)
OSES = ("ubuntu20.04", "ubuntu22.04", "debian12", "rhel9", "kylin10")
PYTHONS = (None, "3.10", "3.13")
POLICIES: tuple[Policy, ...] = ("compatible", "native")
PREFERRED = ("3.12", "3.11", "3.13", "3.10", "3.14", "3.9")


@cache
def numbers(text: str) -> tuple[int, ...]:
    """A version as numbers; .post1 counts behind the release."""
    return tuple(int(part) for part in text.replace("post", "").split("."))


@dataclass(frozen=True)
class Point:
    gpu: str
    driver: str | None
    os: str
    python: str | None
    policy: Policy

    @property
    def capability(self) -> tuple[int, int]:
        return capability(self.gpu)


@cache
def capability(gpu: str) -> tuple[int, int]:
    found = lookup(gpu).capability
    return found.major, found.minor


@cache
def branch(driver: str) -> dict[str, Any]:
    found: dict[str, Any] = [row for row in BRANCHES if row["branch"] <= numbers(driver)[0]][-1]
    return found


def runs(code: list[str], capability: tuple[int, int]) -> bool:
    """Machine code runs on its own major generation, from its own minor on."""
    held = [numbers(one) for one in code]
    return any(one[0] == capability[0] and one[1] <= capability[1] for one in held)


Stack = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def broken(point: Point, driver: str, stack: Stack) -> Iterator[str]:
    """The rules that a vLLM release, a build of it and a torch wheel break on a host."""
    row, build, wheel = stack
    native, torch = branch(driver)["cuda"], TORCH[row["torch"]]
    newest = max(build["cuda"], wheel["cuda"], key=numbers)
    if "blocked" in row:
        yield "cannot be installed"
    if numbers(driver) < numbers(CUDA[newest]["floor"]):
        yield "driver below the floor"
    if not runs(build["capabilities"], point.capability):
        yield "no machine code in vLLM"
    if not runs(wheel["capabilities"], point.capability):
        yield "no machine code in torch"
    if numbers(build["cuda"])[0] != numbers(wheel["cuda"])[0]:
        yield "two CUDA majors"
    if numbers(wheel["cuda"]) < min(numbers(build["cuda"]), numbers(ordinary(torch)["cuda"])):
        yield "torch brings an older runtime than vLLM is published with"
    if point.policy == "native" and numbers(newest) > numbers(native):
        yield "CUDA newer than the driver's own"
    glibc = numbers(SYSTEMS[point.os]["glibc"])
    if glibc < max(numbers(row["glibc"]), numbers(torch["glibc"]), numbers(build.get("glibc", "0"))):
        yield "glibc"
    pythons = set(row["python"]) & set(torch["python"])
    if not pythons or (point.python and point.python not in pythons):
        yield "python"
    if point.capability >= (10, 0) and numbers(native) < numbers(build["cuda"]):
        yield "PTX that the driver cannot compile"
    if triton_major(torch["triton"], point.capability) > numbers(native)[0]:
        yield "Triton's assembler"
    if any(rule["effect"] == "fails" for rule in rules(row, point)):
        yield "known to fail"


@cache
def triton_major(triton: str, capability: tuple[int, int]) -> int:
    older = [one for one in TRITON if numbers(one["version"]) <= numbers(triton)]
    row = max(older, key=lambda one: numbers(one["version"])) if older else TRITON[0]
    newest = capability >= numbers(row["newest_from"])
    return int(numbers(row["ptxas_newest"] if newest else row["ptxas"])[0])


def ordinary(torch: dict[str, Any]) -> dict[str, Any]:
    return next(build for build in torch["builds"] if build["index"] == "ordinary")


def rules(row: dict[str, Any], point: Point) -> Iterator[dict[str, Any]]:
    name = f"{point.capability[0]}.{point.capability[1]}"
    for rule in VLLM["rule"]:
        since, until = numbers(rule.get("since", "0")), numbers(rule.get("until", "999"))
        if name in rule["capabilities"] and since <= numbers(row["version"]) <= until:
            yield rule


def risks(point: Point, driver: str, stack: Stack) -> int:
    """How many things are known that may go wrong."""
    row, build, wheel = stack
    behind = numbers(branch(driver)["cuda"]) < numbers(build["cuda"])
    known = (
        not build["verified"],
        not wheel["verified"],
        point.capability[0] == 9 and behind and numbers(build["cuda"]) >= (12, 8),
        numbers(SYSTEMS[point.os]["glibc"]) < numbers(row.get("glibc_mixture_of_experts", "0")),
        *(rule["effect"] == "risk" for rule in rules(row, point)),
    )
    return sum(map(bool, known))


def stacks() -> Iterator[Stack]:
    for row in VLLM["vllm"]:
        for build in row["builds"]:
            for wheel in TORCH[row["torch"]]["builds"]:
                if "cpu" not in (build["variant"], wheel["tag"]):
                    yield row, build, wheel


ALL_STACKS = tuple(stacks())


def points(gpu: str) -> Iterator[Point]:
    for driver, os, python, policy in product(DRIVERS, OSES, PYTHONS, POLICIES):
        yield Point(gpu, driver, os, python, policy)


@cache
def decided(point: Point) -> Any:
    machine = Machine(gpus=(lookup(point.gpu),), driver=point.driver, os=point.os)
    wish = Wish(python=point.python, policy=point.policy, manage_driver=point.driver is None)
    return decide_once(machine, wish)


def driver_of(answer: Decision) -> str:
    """The driver that will be there: of a branch to install, its first release."""
    assert answer.driver is not None
    if answer.driver.action == "keep":
        return str(answer.driver.version)
    row = next(row for row in BRANCHES if row["branch"] == answer.driver.branch)
    return str(CUDA[row["cuda"]]["native_driver"])


def chosen(answer: Decision) -> Stack:
    release, _, variant = str(answer.vllm).partition("+")
    for row, build, wheel in ALL_STACKS:
        if (row["version"], build["variant"], wheel["tag"]) == (release, variant, answer.cuda_tag):
            return row, build, wheel
    raise AssertionError(f"{answer.vllm} with {answer.cuda_tag} is not in the tables")


def test_the_grid_has_thousands_of_points() -> None:
    assert len(GPUS) * len(DRIVERS) * len(OSES) * len(PYTHONS) * len(POLICIES) >= 2000


@pytest.mark.parametrize("gpu", GPUS)
def test_no_decision_breaks_a_rule_of_the_tables(gpu: str) -> None:
    for point in points(gpu):
        answer = decided(point)
        if not answer.ok:
            continue
        stack = chosen(answer)
        row, torch = stack[0], TORCH[stack[0]["torch"]]
        assert list(broken(point, driver_of(answer), stack)) == [], point
        assert answer.torch.split("+")[0] == row["torch"], point
        assert answer.python in set(row["python"]) & set(torch["python"]), point
        assert point.python in (None, answer.python), point
        assert answer.transformers == row["pins"]["transformers"], point


@pytest.mark.parametrize("gpu", GPUS)
def test_anything_newer_breaks_a_rule_or_is_less_preferred(gpu: str) -> None:
    for point in points(gpu):
        answer = decided(point)
        if not answer.ok:
            continue
        driver, stack = driver_of(answer), chosen(answer)
        row, build, wheel = stack
        least = risks(point, driver, stack)
        for other in ALL_STACKS:
            newer = numbers(other[0]["version"]) > numbers(row["version"])
            same = other[0] is row and other[1] is build
            tag = same and wheel["index"] != "ordinary" and numbers(other[2]["cuda"]) > numbers(wheel["cuda"])
            if (newer or tag) and not any(broken(point, driver, other)):
                assert risks(point, driver, other) > least, (point, other[0]["version"], other[2]["tag"])
        allowed = set(row["python"]) & set(TORCH[row["torch"]]["python"])
        assert point.python or answer.python == next(one for one in PREFERRED if one in allowed), point


@pytest.mark.parametrize("gpu", GPUS)
def test_a_refusal_leaves_no_stack_that_would_have_worked(gpu: str) -> None:
    card = lookup(gpu)
    for point in points(gpu):
        answer = decided(point)
        if answer.ok:
            continue
        assert answer.failed, point
        if point.driver is None:
            continue
        row = branch(point.driver)
        served = numbers(row["oldest_capability"]) <= point.capability <= numbers(row["newest_capability"])
        listed = card.first_driver is None or numbers(card.first_driver)[0] <= row["branch"]
        if served and listed:
            assert all(any(broken(point, point.driver, stack)) for stack in ALL_STACKS), point


@pytest.mark.parametrize("gpu", GPUS)
def test_the_driver_to_install_is_the_newest_maintained_one_that_serves_the_gpu(gpu: str) -> None:
    card = lookup(gpu)
    answer = decided(Point(gpu, None, "ubuntu22.04", None, "compatible"))
    if not answer.ok:
        assert card.capability < (7, 0)
        return
    serving = [
        row["branch"]
        for row in BRANCHES
        if row["status"] in ("production", "long-term")
        and numbers(row["oldest_capability"]) <= capability(gpu) <= numbers(row["newest_capability"])
        and (card.first_driver is None or numbers(card.first_driver)[0] <= row["branch"])
    ]
    assert answer.driver.branch == max(serving)
    assert answer.driver.modules == ("proprietary" if card.capability < (7, 5) else "open")
