"""The closure of an environment for a platform that is not this one, by `uv pip compile`."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import tomli
from pydantic import ValidationError

from plan import packages, project
from plan.errors import PlanError
from plan.host import EnvironmentPlan
from plan.lock import Wheel

# A cold cache fetches the metadata of some two hundred wheels.
TIMEOUT_SECONDS = 900
# Nothing from files of whoever runs this.
VARIABLES = {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "1"}
Closure = dict[str, list[Wheel]]


class UnresolvableError(PlanError):
    """These pins have no closure: uv says why."""


def version() -> str:
    """uv's version."""
    return metadata.version("uv")


def closure(
    environment: EnvironmentPlan,
    platform: str,
    preferred: Mapping[str, str],
    upgrades: Iterable[str] = (),
    as_of: str | None = None,
) -> Closure:
    """`distribution==version` -> the wheels that may be it, of everything that the environment needs.

    Args:
        environment: what is asked for.
        platform: as uv calls it: `x86_64-manylinux_2_36`.
        preferred: distribution -> the version to stay at while it fits.
        upgrades: distributions to take the newest of instead, or `NAME==VERSION`.
        as_of: the day after which nothing counts as published, UTC; what has an index of its own is exempt,
            because it is pinned, and such indexes say no days; so is the ModelScope client, up to its own.

    Raises:
        UnresolvableError: there is none, or an index says no sha256 of a wheel.
    """
    moved = dict(one.partition("==")[::2] for one in upgrades)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "pyproject.toml").write_text(project.text(environment))
        (scratch / "constraints.txt").write_text(_constraints(environment, moved))
        if preferred:
            (scratch / "pylock.toml").write_text(_preferences(preferred))
        options = [word for name, pin in moved.items() if not pin for word in ("--upgrade-package", name)]
        options += _until(as_of, environment) if as_of else []
        done = _run(scratch, environment, platform, options)
        if done.returncode:
            raise UnresolvableError([*_too_new(done.stderr, as_of), sentence(done.stderr)])
        return _wheels(tomli.loads((scratch / "pylock.toml").read_text()))


def _constraints(environment: EnvironmentPlan, moved: Mapping[str, str]) -> str:
    """What is asked for by version stands above the tables."""
    lines = project.constraints(environment).splitlines()
    kept = [line for line in lines if not moved.get(line.partition("==")[0])]
    return "".join(f"{line}\n" for line in [*kept, *(f"{n}=={v}" for n, v in moved.items() if v)])


def _until(day: str, environment: EnvironmentPlan) -> list[str]:
    end = date.fromisoformat(day) + timedelta(days=1)
    bounds = dict.fromkeys(environment.only_from, "false")
    # the client that brings models is bringup's own, whatever the age of the server
    parts, tried = packages.modelscope_parts()
    bounds |= dict.fromkeys(parts, _midnight(max(end, date.fromisoformat(tried) + timedelta(days=1))))
    exempt = [word for each in bounds.items() for word in ("--exclude-newer-package", "=".join(each))]
    return ["--exclude-newer", _midnight(end), *exempt]


def _midnight(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _too_new(words: str, as_of: str | None) -> Iterator[str]:
    """What the day left out, in sentences."""
    if as_of is None:
        return
    hints = re.findall(
        r"`(\S+)` was filtered by `exclude-newer(?:-package)?`([^`]*)", re.sub(r"\s+", " ", words)
    )
    for name, rest in hints:
        came = re.search(r"v([^\s,]+),(?: was)? published at ([0-9-]{10})", rest)
        if came:
            yield f"{name} {came[1]} came on {came[2]}, after {as_of}."
        else:
            yield f"The index does not say when {name} came out: use one that does, or leave out --as-of."


def _preferences(preferred: Mapping[str, str]) -> str:
    """An earlier result, as far as uv reads one to stay at its versions."""
    lines = ['lock-version = "1.0"', 'created-by = "bringup"']
    for name, pinned in preferred.items():
        lines += ["", "[[packages]]", f'name = "{name}"', f'version = "{pinned}"']
    return "\n".join([*lines, ""])


def command() -> list[str]:
    """uv's own command: the one beside this Python, or the machine's."""
    beside = Path(sys.executable).with_name("uv")
    return [str(beside) if beside.exists() else shutil.which("uv") or "uv"]


def _run(
    folder: Path, environment: EnvironmentPlan, platform: str, options: list[str]
) -> subprocess.CompletedProcess[str]:
    line = [*command(), "pip", "compile"]
    line += ["--quiet", "--all-extras", "--no-header", "--no-annotate", "--only-binary", ":all:"]
    line += ["--python-version", environment.python, "--python-platform", platform]
    line += ["--constraint", "constraints.txt", "--format", "pylock.toml"]
    line += [*options, *environment.addresses.index_options, "--output-file", "pylock.toml", "pyproject.toml"]
    try:
        return subprocess.run(
            line,
            cwd=folder,
            env=os.environ | VARIABLES,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnresolvableError([f"uv found no closure within {TIMEOUT_SECONDS} s. Run again."]) from None
    except OSError as error:
        raise PlanError([f"uv cannot be run: {error.strerror}. Run `make venv`."]) from None


def sentence(words: str) -> str:
    """uv's explanation as one line."""
    line = re.sub(r"\s+", " ", re.sub(r"[│╰─▶×├]", " ", words)).strip()
    line = line.removeprefix("error: ").partition(" hint:")[0]
    return line if len(line) <= 380 else f"{line[:380]}..."


def _wheels(lock: dict[str, Any]) -> Closure:
    found: Closure = {}
    for package in lock.get("packages", ()):
        requirement = f"{package['name']}=={package['version']}"
        wheels = [_wheel(requirement, wheel) for wheel in package.get("wheels", ())]
        if not wheels:
            raise UnresolvableError([f"{requirement} has no wheel for this platform."])
        found[requirement] = sorted(wheels, key=lambda wheel: wheel.file)
    return found


def _wheel(requirement: str, wheel: dict[str, Any]) -> Wheel:
    place = str(wheel.get("url") or wheel.get("path") or "")
    file = wheel.get("name") or unquote(place.partition("#")[0].rpartition("/")[2])
    try:
        return Wheel(file=file, sha256=wheel["hashes"]["sha256"], size=wheel.get("size"))
    except (KeyError, ValidationError):
        raise UnresolvableError(
            [f"the index says no sha256 of {file}, which is {requirement}. Use another index."]
        ) from None
