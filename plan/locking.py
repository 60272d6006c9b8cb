"""Between plans and the lock: what a plan is called there, what it is held to, where it drifts."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator
from typing import TypeVar

from packaging.version import Version

from plan import lock_tags, nvidia_pins, sources
from plan.bundle import channel_path
from plan.errors import PlanError
from plan.host import EnvironmentPlan, HostPlan, TagPlan
from plan.lock import Host, Lock, Stack
from plan.model_plan import ModelPlan
from plan.models_host import Pin, wanted
from plan.packages import Tool
from plan.probe import Probe
from plan.sections import Settings
from plan.sections.base import Section

# The C libraries that uv knows as platforms, oldest first.
GLIBCS = ("2.17", "2.28", "2.31", "2.32", "2.33", "2.34", "2.35", "2.36", "2.37", "2.38", "2.39", "2.40")
# Pinned by the tables and not by the operator: the lock may know an earlier one than the tables do now.
_OF_THE_TABLES = frozenset({"transformers", "accelerate"})
Part = TypeVar("Part", bound=Section)
FIX = "Run `python -m plan lock` for its inventory, or deploy with `--data relock=true`."


def platform(probe: Probe) -> str:
    """uv's name for the newest platform that the host's CPU and C library are good for."""
    there = Version(probe.glibc or GLIBCS[0])
    fitting = [one for one in GLIBCS if Version(one) <= there] or [GLIBCS[0]]
    return f"{probe.architecture}-manylinux_{fitting[-1].replace('.', '_')}"


def stack_name(environment: EnvironmentPlan, target: str) -> str:
    """What the environment's stack is called in the lock: readable, and the same for the same wishes."""
    asked = [
        dataclasses.asdict(dataclasses.replace(environment, name="", certificates="", locked="")),
        target,
    ]
    digest = hashlib.sha256(json.dumps(asked, default=sorted, sort_keys=True).encode()).hexdigest()[:8]
    pins = {name: version for part in environment.pins.values() for name, version in part.items()}
    main = next((f"{name}{pins[name]}" for name in ("vllm", "torch") if name in pins), "bare")
    return f"{main}-python{environment.python}-{target}-{digest}"


def held(settings: Settings, host: str, lock: Lock, free: Collection[str] = ()) -> Settings:
    """The settings with what the lock has chosen for this host, wherever the operator chose nothing.

    What is in `free` is chosen anew: "vllm" and "torch", which go together, "python", "ollama".
    """
    entry = lock.hosts.get(host)
    if entry is None:
        return settings
    stack = lock.stack[entry.stack] if entry.stack else None
    if stack:
        # vLLM and torch go together: who chose one of them gets the other that fits it
        chosen = settings.environment.torch or any(service.vllm for service in settings.serve.values())
        pins = {} if chosen or {"vllm", "torch"} & {*free} else stack.pins
        python = None if "python" in free else stack.python
        environment = unset(settings.environment, python=python, torch=pins.get("torch", {}).get("torch"))
        settings = settings.model_copy(update={"environment": environment})
        settings = with_vllm(settings, pins.get("vllm", {}).get("vllm"))
    if entry.driver in lock.driver and "driver" not in free:
        settings = nvidia_pins.held(settings, lock.driver[entry.driver])
    if entry.ollama and "ollama" not in free:
        version = entry.ollama.partition(" ")[0]
        if settings.sources.ollama_version is None:
            found = {"ollama_version": version, "ollama_sha256": lock.ollama[entry.ollama].sha256}
            settings = settings.model_copy(update={"sources": settings.sources.model_copy(update=found)})
    return settings


def with_vllm(settings: Settings, version: str | None) -> Settings:
    """The settings with this vLLM for every service that has none of its own."""
    serve = {
        name: unset(service, vllm=version) if service.engine == "vllm" else service
        for name, service in settings.serve.items()
    }
    return settings.model_copy(update={"serve": serve})


def unset(part: Part, **values: str | None) -> Part:
    """The section with these values where it has none."""
    return part.model_copy(update={name: value for name, value in values.items() if not getattr(part, name)})


def digest(host: str, lock: Lock) -> str:
    """Twelve hex digits that change with what the lock has for a host, and not with how that came about."""
    entry = lock.hosts[host]
    stack = lock.stack[entry.stack] if entry.stack else None
    driver = lock.driver.get(entry.driver or "")
    parts = [
        entry.model_dump(),
        stack.model_dump(exclude={"made_by", "resolved", "instead_of"}) if stack else None,
        driver.model_dump(exclude={"made_by"}) if driver else None,
        [lock.model[name].model_dump(exclude={"made_by"}) for name in entry.models],
        [lock.tag[name].layers for name in entry.tags],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def apply(plan: HostPlan, settings: Settings, probe: Probe, lock: Lock, name: str) -> HostPlan:
    """The plan with what the lock holds in its place.

    Args:
        plan: decided from settings that `held` has been over.
        name: the lock's file name, for the sentence.

    Raises:
        PlanError: the plan drifts from the lock; one sentence says where.
    """
    entry = lock.hosts.get(plan.host)
    if entry is None:
        raise PlanError([f"lock: {name} does not know this host. {FIX}"])
    stack = lock.stack[entry.stack] if entry.stack else None
    driver = lock.driver.get(entry.driver or "")
    found = [*_drift(plan, settings, probe, entry, stack), *_bytes_drift(plan, probe, lock)]
    found += lock_tags.drift(plan, entry, lock)
    found += nvidia_pins.drift(plan.driver, driver) if driver else _new_driver(plan, entry)
    if found:
        raise PlanError([f"lock: {name} has {'; '.join(found)}. {FIX}"])
    if driver:
        plan = dataclasses.replace(plan, driver=nvidia_pins.locked(plan.driver, driver, probe))
    return lock_tags.held(_with_models(_with(plan, stack), lock), lock)


def with_stack(plan: HostPlan, settings: Settings, probe: Probe, lock: Lock) -> HostPlan | None:
    """The plan with the stack that the lock has for this host; None where the environment drifts from it."""
    entry = lock.hosts[plan.host]
    stack = lock.stack[entry.stack] if entry.stack else None
    drifts = any(_environment_drift(plan, settings, probe, stack))
    return None if drifts else _with(plan, stack)


def _with(plan: HostPlan, stack: Stack | None) -> HostPlan:
    if plan.environment is None or stack is None:
        return plan
    return dataclasses.replace(plan, environment=_locked(plan.environment, stack))


def _with_models(plan: HostPlan, lock: Lock) -> HostPlan:
    """The plan with what the lock has of its models' bytes."""
    models = tuple(
        dataclasses.replace(model, locked=tuple(sorted(_locked_files(model, lock).items())))
        for model in plan.models
    )
    return dataclasses.replace(plan, models=models)


def _locked_files(model: ModelPlan, lock: Lock) -> dict[str, str]:
    """Path -> sha256, or "" where its hub said none, of what the lock has of a model at this commit."""
    there = lock.model.get(model_key(model.model, model.revision))
    if isinstance(model, TagPlan) or there is None or there.commit != model.commit:
        return {}
    return {path: file.sha256 or "" for path, file in there.files.items()}


def _bytes_drift(plan: HostPlan, probe: Probe, lock: Lock) -> Iterator[str]:
    """Where a model on the host was verified to be other bytes than the lock has."""
    for model in plan.models:
        there = probe.models.get(model.directory)
        recorded = there.manifest.get("files", {}) if there else {}
        for path, sha256 in _locked_files(model, lock).items():
            if sha256 and recorded.get(path, {}).get("sha256", sha256) != sha256:
                yield f"other bytes of {path} of {model.model} than this host has"


def _new_driver(plan: HostPlan, entry: Host) -> Iterator[str]:
    if entry.driver is None and plan.driver.action in ("keep", "install"):
        yield "no driver for it, unlike its plan"


def model_key(model: str, revision: str) -> str:
    """What a model is called in the lock."""
    return f"{model}@{revision}"


def pins(settings: Settings, host: str, lock: Lock) -> dict[tuple[str, str], Pin]:
    """The commits that the lock has of the revisions that a host's settings name."""
    place = sources.models_endpoint(settings.sources)
    entry = lock.hosts.get(host)
    found = {}
    for model, revision in wanted(settings):
        name = model_key(model, revision)
        commit = lock.model[name].commit if entry and name in entry.models else None
        if commit:
            found[model, revision] = Pin(commit, place)
    return found


def models(plan: HostPlan) -> list[str]:
    """What the plan's models are called in the lock."""
    return sorted(
        model_key(model.model, model.revision) for model in plan.models if not isinstance(model, TagPlan)
    )


def ollama_key(plan: HostPlan, probe: Probe) -> str | None:
    """What the plan's Ollama is called in the lock."""
    archive = plan.ollama.archive if plan.ollama else None
    return f"{archive.version} {probe.architecture}" if archive else None


def _drift(
    plan: HostPlan, settings: Settings, probe: Probe, entry: Host, stack: Stack | None
) -> Iterator[str]:
    """Where the plan is another than the lock, in words that follow 'the lock has'."""
    yield from _environment_drift(plan, settings, probe, stack)
    ollama = ollama_key(plan, probe)
    if ollama != entry.ollama:
        yield _other("Ollama", entry.ollama, ollama)
    for model in sorted({*models(plan)} - {*entry.models}):
        yield f"no {model} for it"


def _environment_drift(
    plan: HostPlan, settings: Settings, probe: Probe, stack: Stack | None
) -> Iterator[str]:
    if plan.environment is None or stack is None:
        if (plan.environment is None) != (stack is None):
            yield "no environment for it" if stack is None else "an environment for it, unlike its plan"
    else:
        yield from _stack_drift(plan.environment, settings, probe, stack)


def _stack_drift(
    environment: EnvironmentPlan, settings: Settings, probe: Probe, stack: Stack
) -> Iterator[str]:
    if stack.python != environment.python:
        yield _other("Python", stack.python, environment.python)
    if stack.platform != platform(probe):
        yield _other("wheels for", stack.platform, platform(probe))
    for part in ("torch", "vllm"):
        locked, planned = stack.pins.get(part, {}), environment.pins.get(part, {})
        for package in sorted({*locked, *planned}):
            same = locked.get(package) == planned.get(package)
            if not same and not (package in _OF_THE_TABLES and package in locked and package in planned):
                yield _other(package, locked.get(package), planned.get(package))
    if settings.environment.lock_file and environment.records != _records(environment, stack):
        yield "other conda packages than environment.lock_file"
    if settings.sources.conda_installer and environment.installer_sha256 != stack.installer.sha256:
        yield "another installer than sources.conda_installer"


def _other(what: str, locked: str | None, planned: str | None) -> str:
    if locked is None:
        return f"no {what} for it, and its plan has {planned}"
    if planned is None:
        return f"{what} {locked}, which its plan has not"
    return f"{what} {locked} for it, and its plan has {planned}"


def _locked(environment: EnvironmentPlan, stack: Stack) -> EnvironmentPlan:
    text = _explicit(environment, stack)
    same = environment.installer_sha256 == stack.installer.sha256
    return dataclasses.replace(
        environment,
        installer_urls=environment.installer_urls if same else (stack.installer.url,),
        installer_sha256=stack.installer.sha256,
        explicit_lock=text,
        records=sources.records(text),
        uv=Tool(stack.uv.version, tuple(stack.uv.sha256)),
        pins=stack.pins,
        constraints=stack.constraints,
        locked=stack.requirements,
    )


def _records(environment: EnvironmentPlan, stack: Stack) -> frozenset[str]:
    return sources.records(_explicit(environment, stack))


def _explicit(environment: EnvironmentPlan, stack: Stack) -> str:
    """conda's `@EXPLICIT` text of the stack, from the channel that the settings name now."""
    base = environment.addresses.conda_channel
    closed = environment.addresses.closed
    urls = {
        path: f"{base}/{channel_path(path)}" if closed or "://" not in path else path for path in stack.conda
    }
    lines = [f"{urls[path]}#{hashed}" for path, hashed in stack.conda.items()]
    return "\n".join(["@EXPLICIT", *lines, ""])


def conda_entries(environment: EnvironmentPlan) -> dict[str, str]:
    """The environment's conda packages as the lock names them: below the channel, or by a whole URL."""
    base = f"{environment.addresses.conda_channel}/"
    lines = (line for line in environment.explicit_lock.splitlines() if "://" in line)
    pairs = (line.partition("#") for line in lines)
    return {url.removeprefix(base): hashed for url, _, hashed in pairs}
