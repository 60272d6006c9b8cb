"""What differs between the last whole deploy, the settings of today and the host, and who has moved.

`differences` compares three things: the stamp (what was deployed), the plan of today (what the settings give
now) and what was seen on the host. Each difference is one sentence, and names its mover.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from plan import gpu_health
from plan import stamp as stamps
from plan.host import HostPlan
from plan.probe import Path, Probe, canonical_name, same_version
from plan.stamp import Stamp, StampedFile

Mover = Literal["host", "settings", "program"]
_NOTHING: tuple[Any, ...] = (None, "", {}, [])
_FLOORS = "gpu_floors"
AGAIN = "Deploy again to have it back."


@dataclass(frozen=True)
class Seen:
    """What was seen on a host beyond its probe.

    Attributes:
        stamp: the text of the stamp; None when there is none.
        texts: path -> content, of our files that everybody may read.
        drop_ins: unit -> further unit files that change what it does.
        hashes: model directory -> path below it -> sha256.
    """

    stamp: str | None
    texts: Mapping[str, str] = field(default_factory=dict)
    drop_ins: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        about: what it is about, as a failed check would name it: a path, a unit, a package, a setting.
        mover: the host was changed, or the settings were, or this program decides otherwise.
        sentence: subject, fact, fix.
        diff: of an edited file, from what was deployed to what is there.
    """

    about: str
    mover: Mover
    sentence: str
    diff: str = ""


def differences(
    plan: HostPlan, probe: Probe, seen: Seen, settings: str, version: str, lock: str = ""
) -> tuple[Difference, ...]:
    """All differences of one host.

    Args:
        plan: what the settings of today give.
        probe: what the host is.
        seen: what was seen beyond that.
        settings: digest of the settings of today, as the stamp has that of its own.
        version: of this program.
        lock: digest of what the lock has for the host today, as the stamp has that of its own.
    """
    if seen.stamp is None:
        sentence = (
            f"{stamps.FILE} is not there: no deploy came to its end on this host, or it was deleted. "
            "Deploy again to stamp the host."
        )
        return (Difference(stamps.FILE, "host", sentence),)
    stamp = stamps.parse(seen.stamp)
    if stamp is None:
        sentence = f"{stamps.FILE} cannot be read as a stamp: it was edited on the host. Deploy again."
        return (Difference(stamps.FILE, "host", sentence),)
    return (
        *_decisions(stamp, plan, (settings, lock), version),
        *_cards(stamp, plan, probe),
        *_files(stamp, probe, seen),
        *_environment(plan, probe),
        *_models(plan, probe, seen),
        *_units(plan, probe, seen),
        *_state(probe),
        *(_driver(plan) or _kernel(probe)),
    )


def _decisions(stamp: Stamp, plan: HostPlan, asked: tuple[str, str], version: str) -> Iterator[Difference]:
    """Where the plan of today is another than the one that was deployed."""
    mover: Mover = "settings"
    now, fix = "the settings now give", "Deploy to bring it to the host."
    settings, lock = asked
    if stamp.settings == settings and stamp.lock != lock:
        now = "the lock now gives" if lock else "without the lock the settings give"
    elif stamp.settings == settings:
        mover = "program" if stamp.version != version else "host"
        now = f"bringup {version} now decides" if mover == "program" else "what the host is now leads to"
    for path, before, after in _leaves("", stamp.plan, stamps.lasting(plan)):
        if path == _FLOORS:
            continue
        sentence = f"{path}: deployed was {before}, {now} {after}. {fix}"
        yield Difference(path, mover, sentence)


def _cards(stamp: Stamp, plan: HostPlan, probe: Probe) -> Iterator[Difference]:
    """Another number of GPUs; what each should reach follows from that. One that fell off the bus ails."""
    before, now = len(stamp.plan.get(_FLOORS) or ()), len(plan.gpu_floors)
    if before != now and not gpu_health.ailments(probe):
        sentence = (
            f"the host has {now} GPUs, and had {before} at the deploy: cards were put in or taken out. "
            "Deploy again to plan with these."
        )
        yield Difference("GPUs", "host", sentence)


def _leaves(path: str, before: Any, after: Any) -> Iterator[tuple[str, str, str]]:
    """Path, old and new value, of every innermost value that differs."""
    before, after = _named(before), _named(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from _leaves(f"{path}.{name}".strip("."), before.get(name), after.get(name))
    # a part that a newer version knows, and that is empty, is no difference
    elif before != after and not (before in _NOTHING and after in _NOTHING):
        yield path, _short(before), _short(after)


def _named(value: Any) -> Any:
    """A list of parts that have names, by these names."""
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        keys = [part.get("name") or part.get("model") for part in value]
        if all(isinstance(key, str) for key in keys) and len(set(keys)) == len(keys):
            return dict(zip(keys, value, strict=True))
    return value


def _short(value: Any) -> str:
    if value in _NOTHING:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 and "\n" not in text else f"{len(text)} characters"


def _files(stamp: Stamp, probe: Probe, seen: Seen) -> Iterator[Difference]:
    """Files that are not as the deploy left them."""
    for path, wanted in stamp.files.items():
        there = probe.paths.get(path)
        if there is None:
            yield Difference(path, "host", f"{path} was removed from the host. {AGAIN}")
        elif (there.mode, there.owner) != (wanted.mode, wanted.owner):
            yield Difference(
                path,
                "host",
                f"{path} is {there.owner} {there.mode}, deployed was {wanted.owner} {wanted.mode}: "
                f"it was changed on the host. {AGAIN}",
            )
        elif wanted.sha256 is not None and there.sha256 != wanted.sha256:
            yield _edited(path, wanted, there, seen.texts.get(path), stamp.time)


def _edited(path: str, wanted: StampedFile, there: Path, text: str | None, time: str) -> Difference:
    lines = difflib.unified_diff(
        (wanted.text or "").splitlines(),
        (text or "").splitlines(),
        "deployed",
        "on the host",
        lineterm="",
        n=2,
    )
    sentence = (
        f"{path} was edited on the host since the deploy of {time[:10]}. "
        "Put the change into the settings, or deploy again to undo it."
    )
    return Difference(path, "host", sentence, "\n".join(lines) if text is not None else "")


def _environment(plan: HostPlan, probe: Probe) -> Iterator[Difference]:
    """The environment, its conda packages and its pins."""
    environment = plan.environment
    if environment is None:
        return
    there = probe.environments.get(environment.prefix)
    if there is None:
        sentence = f"{environment.prefix}: there is no whole environment any more. {AGAIN}"
        yield Difference(environment.prefix, "host", sentence)
        return
    for record in sorted(environment.records ^ there.conda):
        fact = "was removed from" if record in environment.records else "was put into"
        sentence = f"{record} {fact} {environment.prefix} on the host. {AGAIN}"
        yield Difference(record, "host", sentence)
    for part in environment.pins.values():
        for name, version in part.items():
            found = there.distributions.get(canonical_name(name.partition("[")[0]))
            if not same_version(found, version):
                fact = f"is {found}" if found else "is gone"
                sentence = f"{name} {fact} in {environment.prefix}, planned is {version}. {AGAIN}"
                yield Difference(name, "host", sentence)


def _models(plan: HostPlan, probe: Probe, seen: Seen) -> Iterator[Difference]:
    """Models that are not whole, with what of them has changed."""
    for model in dict.fromkeys((*plan.models, *(service.model for service in plan.services))):
        if not model.there(probe):
            changed = ", ".join(_changed(model.directory, probe)) or "it is not whole"
            sentence = f"{model.model} in {model.directory}: {changed}. Deploy again to mend it."
            yield Difference(model.directory, "host", sentence)
            continue
        manifest = probe.models[model.directory].manifest if model.directory in probe.models else {}
        hashes = seen.hashes.get(model.directory, {})
        for path, entry in manifest.get("files", {}).items():
            if path in hashes and hashes[path] != entry.get("sha256"):
                sentence = (
                    f"{model.directory}/{path} has other bytes than were verified, at the same size. "
                    "Remove it and deploy again."
                )
                yield Difference(path, "host", sentence)


def _changed(directory: str, probe: Probe) -> Iterator[str]:
    there = probe.models.get(directory)
    if there is None:
        yield "there is no such directory with a manifest"
        return
    listed = there.manifest.get("files", {})
    for path, entry in listed.items():
        found = there.files.get(path)
        if found is None:
            yield f"{path} is gone"
        elif found != (entry.get("size"), entry.get("mtime_ns")):
            yield f"{path} was changed"
    for path in sorted(set(there.files) - set(listed) - {".bringup.json"}):
        yield f"{path} was put there"


def _units(plan: HostPlan, probe: Probe, seen: Seen) -> Iterator[Difference]:
    """Services that do not run, or not by the text that the deploy wrote."""
    for service in plan.services:
        unit = probe.units.get(service.unit)
        if unit is None:
            continue  # its file is gone, which was said
        if unit.active != "active":
            fact = "has failed" if unit.active == "failed" else f"is {unit.active}"
            sentence = f"{service.unit} {fact}: it was stopped or broke. Deploy again to start it."
            yield Difference(service.unit, "host", sentence)
        elif unit.enabled != "enabled":
            sentence = f"{service.unit} is {unit.enabled}: a reboot ends it. Deploy again to enable it."
            yield Difference(service.unit, "host", sentence)
        if seen.drop_ins.get(service.unit):
            sentence = f"{service.unit} is changed by {seen.drop_ins[service.unit]}. Remove that."
            yield Difference(seen.drop_ins[service.unit], "host", sentence)


def _state(probe: Probe) -> Iterator[Difference]:
    """What no plan pins, against what it was when the deploy ended."""
    before = stamps.state_lines(probe.state)
    for (kind, name), value in before.items():
        if kind == "package" and probe.packages.get(name) != value:
            now = probe.packages.get(name)
            fact = f"is {now}, and was {value} at the deploy" if now else f"{value} was removed"
            sentence = (
                f"package {name} {fact}: it was changed on the host. Deploy again to accept or mend it."
            )
            yield Difference(name, "host", sentence)
        if kind == "lock":
            found = probe.paths.get(name)
            if found is None or found.sha256 != value:
                fact = "was edited" if found else "was removed"
                yield Difference(name, "host", f"{name} {fact} on the host. {AGAIN}")


def _driver(plan: HostPlan) -> list[Difference]:
    """What of a driver that is kept as planned is not as it was left."""
    work = plan.driver.work
    if not plan.driver.maintained:
        return []
    found = {
        "are missing, or of another release": work.install,
        "are held no more, so that any upgrade may move them": work.hold,
    }
    sentences = [
        f"packages {', '.join(names)} {fact}: they were changed on the host. {AGAIN}"
        for fact, names in found.items()
        if names
    ]
    if work.build and not work.install:
        kernels = ", ".join(work.build)
        sentences.append(
            f"kernel {kernels} has no NVIDIA module of the planned driver. Deploy again to build it."
        )
    return [Difference("driver", "host", sentence) for sentence in sentences]


def _kernel(probe: Probe) -> Iterator[Difference]:
    """A driver that nobody maintains, and the kernel under it."""
    before = stamps.state_lines(probe.state)
    kernel, driver = before.get(("kernel", ""), probe.kernel), before.get(("driver", ""), "-")
    if driver != "-" and probe.driver is None:
        since = f"since kernel {probe.kernel} ({kernel} at the deploy)" if kernel != probe.kernel else "now"
        sentence = (
            f"no NVIDIA module is loaded {since}; it was {driver}. "
            "Install the headers of this kernel and run `dkms autoinstall`, or boot the old one."
        )
        yield Difference("driver", "host", sentence)
    elif driver not in ("-", probe.driver):
        sentence = f"the NVIDIA driver is {probe.driver or 'gone'}, and was {driver} at the deploy."
        yield Difference("driver", "host", f"{sentence} Deploy again to accept it.")
