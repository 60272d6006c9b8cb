"""Makes the lock of an inventory from what its hosts are: one closure for each distinct stack."""

import dataclasses
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from plan import apt_closure, compat, dnf_closure, lock_tags, lock_upgrades, locking, nvidia_pins, tokens, uv
from plan.decide import package_manager
from plan.errors import PlanError
from plan.host import EnvironmentPlan, HostPlan
from plan.hub import TokenError
from plan.lock import WORD_SIGNS, Archive, Driver, Host, Lock, Model, Packages, Stack, Tag
from plan.lock_wish import Wish
from plan.places import COMMIT
from plan.probe import Probe
from plan.seen import Seen
from plan.settings import Settings
from plan.tokens import Tokens

# uv waits for indexes most of the time.
_AT_ONCE = 4
# How many older vLLM releases are tried when the newest choice has no closure.
_TRIES = 6
_UNLISTED = Model(made_by="not listed by its hub", files={})


class Resolver(Protocol):
    """What finds closures; `uv.closure` is one."""

    def __call__(
        self,
        environment: EnvironmentPlan,
        platform: str,
        preferred: Mapping[str, str],
        upgrades: Iterable[str],
        as_of: str | None,
    ) -> uv.Closure: ...


# What the lock says of a model of a plan, by its name there.
Lister = Callable[[HostPlan, str, Tokens], Model]


@dataclasses.dataclass(frozen=True)
class Made:
    """The lock, what to tell the operator of it, and which hosts have no place in it, in sentences."""

    lock: Lock
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def make(
    hosts: Iterable[Seen],
    old: Lock | None,
    upgrades: tuple[str, ...] = (),
    model: Lister | None = None,
    tag: lock_tags.Lister | None = None,
    resolver: Resolver = uv.closure,
    complete: bool = True,
    as_of: str | None = None,
    today: str | None = None,
) -> Made:
    """The lock of these hosts.

    A host whose plan still fits the old lock keeps its stack, to the byte, unless something in it is to be
    upgraded; a new stack stays at the old versions of its hosts where they fit. A host that cannot be planned
    keeps its old entry.

    Args:
        hosts: what they are and shall be.
        old: the lock that lies there.
        upgrades: distributions to move to their newest, or `NAME==VERSION`.
        model: what the lock says of a model of a plan, by its name there; None leaves models out.
        tag: what the lock says of a model of Ollama's, by its name; None leaves them out.
        resolver: what finds the closure of a stack.
        complete: these are all hosts; else those that the old lock has beside them keep their entries.
        as_of: the day after which no package counts as published; stacks of another day are made anew.
        today: the day, for what is resolved without such a bound.
    """
    work = _Work(old, upgrades, resolver, as_of, today)
    looked_at = list(hosts)
    for seen in looked_at:
        work.plan(seen)
    if old and not complete:
        work.unplanned += sorted({*old.hosts} - {seen.host for seen in looked_at})
    work.resolve()
    return work.made(model, tag)


class _Work:
    """The lock while it is being made."""

    def __init__(
        self,
        old: Lock | None,
        upgrades: tuple[str, ...],
        resolver: Resolver,
        as_of: str | None,
        today: str | None,
    ) -> None:
        self.old = old
        self.upgrades = upgrades
        self.names = frozenset(lock_upgrades.versions(upgrades))
        self.distributions = lock_upgrades.distributions(upgrades)
        self.resolver = resolver
        self.as_of = as_of
        self.today = today
        self.wishes: dict[str, Wish] = {}
        self.stacks: dict[str, Stack] = {}
        self.failures: dict[str, str] = {}
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.unplanned: list[str] = []

    def plan(self, seen: Seen) -> None:
        """Plans a host: as the old lock has it where that still fits, else anew."""
        try:
            wanted, probe = lock_upgrades.asked(seen.settings(), self.upgrades), seen.parsed()
            wish = self._kept(seen, wanted, probe)
            self.wishes[seen.host] = wish or Wish(seen, wanted, seen.plan(wanted), locking.platform(probe))
        except PlanError as error:
            self._refuse(seen.host, error.sentences)

    def _kept(self, seen: Seen, wanted: Settings, probe: Probe) -> Wish | None:
        entry = self.old.hosts.get(seen.host) if self.old else None
        if self.old is None or entry is None:
            return None
        if entry.stack and not self._of_the_day(self.old.stack[entry.stack]):
            return None
        try:
            plan = seen.plan(locking.held(wanted, seen.host, self.old, free=self.names))
        except PlanError:
            return None
        kept = locking.with_stack(plan, wanted, probe, self.old)
        if kept is None:
            return None
        before = self.old.stack[entry.stack].instead_of if entry.stack else {}
        return Wish(seen, wanted, kept, locking.platform(probe), before, entry.stack)

    def _of_the_day(self, stack: Stack) -> bool:
        """Whether the stack stays as far as the day is concerned."""
        return self.as_of in (None, stack.resolved)

    def _old_stack(self, host: str) -> Stack | None:
        entry = self.old.hosts.get(host) if self.old else None
        return self.old.stack[entry.stack] if self.old and entry and entry.stack else None

    def _with_vllm(self, wish: Wish, version: str, instead_of: Mapping[str, str]) -> Wish | None:
        try:
            plan = wish.seen.plan(locking.with_vllm(wish.settings, version))
        except PlanError:
            return None
        return dataclasses.replace(wish, plan=plan, instead_of=dict(instead_of))

    def resolve(self) -> None:
        """Finds every stack's closure; a host whose stack has none takes the next older vLLM that has."""
        waiting = list(self.wishes.values())
        for _ in range(_TRIES):
            distinct = {wish.stack: wish for wish in waiting if wish.stack}
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._resolve_stack, distinct.values()))
            failed = [wish for wish in waiting if wish.stack in self.failures]
            waiting = [older for wish in failed if (older := self._older(wish))]
            if not waiting:
                return
        for wish in waiting:
            why = next(iter(wish.instead_of.values()))
            self._refuse(
                wish.seen.host, [f"lock: no closure within {_TRIES} vLLM releases. Pin `vllm`. First: {why}"]
            )

    def _resolve_stack(self, wish: Wish) -> None:
        name, environment = wish.stack, wish.plan.environment
        assert name and environment
        if name in self.stacks or name in self.failures:
            return
        there = self.old.stack.get(name) if self.old else None
        if there and not self.distributions and self._of_the_day(there):
            self.stacks[name] = there
            return
        before = None if self.as_of else there or self._old_stack(wish.seen.host)
        preferred = before.versions if before else {}
        try:
            wheels = self.resolver(environment, wish.platform, preferred, self.distributions, self.as_of)
        except uv.UnresolvableError as error:
            self.failures[name] = textwrap.shorten(" ".join(error.sentences), WORD_SIGNS, placeholder="...")
            return
        if there and before:
            # of what does not move, the files that may be it stay too
            wheels = {one: there.wheels.get(one, files) for one, files in wheels.items()}
        made = wish.resolved(wheels, self.distributions)
        same = there and made == there.model_copy(update={"made_by": made.made_by, "resolved": None})
        self.stacks[name] = (
            there if there and same else made.model_copy(update={"resolved": self.as_of or self.today})
        )

    def _older(self, wish: Wish) -> Wish | None:
        """The same host with the next older vLLM that it can be planned with."""
        refused, why = wish.vllm, self.failures[str(wish.stack)]
        pinned = any(service.vllm for service in wish.settings.serve.values())
        reasons = {**wish.instead_of, refused: why}
        if refused and not pinned and not wish.kept:
            releases = list(compat.vllms())
            release = refused.split()[1].partition("+")[0]
            for version in releases[releases.index(release) + 1 :]:
                if self.as_of and compat.vllms()[version].released > self.as_of:
                    continue
                older = self._with_vllm(wish, version, reasons)
                if older and older.stack not in self.failures:
                    self.wishes[wish.seen.host] = older
                    return older
        self._refuse(wish.seen.host, [f"lock: its packages cannot be resolved: {why}"])
        return None

    def _refuse(self, host: str, sentences: Iterable[str]) -> None:
        self.problems += [f"{host}: {sentence}" for sentence in sentences]
        self.wishes.pop(host, None)
        self.unplanned.append(host)

    def made(self, model: Lister | None, tag: lock_tags.Lister | None) -> Made:
        """The lock of all that was found."""
        hosts: dict[str, Host] = {}
        archives: dict[str, Archive] = {}
        models: dict[str, Model] = {}
        stacks: dict[str, Stack] = {}
        packages: dict[str, Packages] = {}
        drivers: dict[str, Driver] = {}
        tags: dict[str, Tag] = {}
        for name, wish in self.wishes.items():
            if wish.stack:
                stacks[wish.stack] = self.stacks[wish.stack]
            ollama = locking.ollama_key(wish.plan, wish.seen.parsed())
            if ollama and wish.plan.ollama and (archive := wish.plan.ollama.archive):
                file = archive.urls[0].rpartition("/")[2]
                archives[ollama] = Archive(made_by="plan/ollama.toml", file=file, sha256=archive.sha256)
            found = self._models(wish, models, model) if model else []
            if tag:
                self.notes += lock_tags.listed(wish.plan, self.old, self.names, tags, tag)
            hosts[name] = Host(
                stack=wish.stack,
                ollama=ollama,
                models=found,
                tags=[one for one in lock_tags.names(wish.plan) if one in tags],
                driver=self._driver(wish, drivers, packages),
                packages=self._packages(wish.seen, packages),
            )
        lock = Lock(
            hosts=hosts,
            stack=stacks,
            ollama=archives,
            model=models,
            packages=packages,
            driver=drivers,
            tag=tags,
        )
        return Made(self._with_unplanned(lock), tuple(self._notes()), tuple(self.problems))

    def _packages(self, seen: Seen, known: dict[str, Packages]) -> str | None:
        """The name of the distribution's packages of a host: those of the old lock, or as the host says."""
        probe = seen.parsed()
        name = f"{probe.os} {probe.architecture}"
        there = self.old.packages.get(name) if self.old else None
        if there and "packages" not in self.names:
            known[name] = there
        elif name not in known and seen.packages.strip():
            try:
                closure = {"apt": apt_closure, "dnf": dnf_closure}[package_manager(probe)]
                known[name] = closure.parse(seen.packages)
            except PlanError as error:
                self.notes.append(f"{seen.host}: not in the lock: {' '.join(error.sentences)}")
        return name if name in known else None

    def _driver(self, wish: Wish, known: dict[str, Driver], packages: dict[str, Packages]) -> str | None:
        """The name of a host's driver: that of the old lock while it fits, or as the host says."""
        plan, probe = wish.plan.driver, wish.seen.parsed()
        entry = self.old.hosts.get(wish.seen.host) if self.old else None
        there = self.old.driver.get(entry.driver or "") if self.old and entry else None
        stays = there and there.packages and "driver" not in self.names
        if there and entry and entry.driver and stays and not any(nvidia_pins.drift(plan, there)):
            known[entry.driver] = nvidia_pins.joined(known.get(entry.driver), there)
            nvidia_pins.add_closure(packages, entry.driver, self.old, wish.seen.driver)
            return entry.driver
        found = nvidia_pins.pins(plan, probe, wish.seen.driver)
        if found is None:
            return None
        name = nvidia_pins.name(found, plan, probe)
        known[name] = nvidia_pins.joined(known.get(name), found)
        nvidia_pins.add_closure(packages, name, None, wish.seen.driver)
        if wish.seen.driver.startswith("problem "):
            why = wish.seen.driver.removeprefix("problem ").strip()
            self.notes.append(f"{wish.seen.host}: the driver is in the lock without its packages: {why}")
        return name

    def _models(self, wish: Wish, models: dict[str, Model], model: Lister) -> list[str]:
        plan = wish.plan
        names = locking.models(plan)
        for name in names:
            there = self.old.model.get(name) if self.old else None
            moved = name.partition("@")[0] in self.names
            if name not in models:
                try:
                    kept = there if there and there.files and there.commit and not moved else None
                    given = tokens.read(wish.settings.models)
                    models[name] = kept or model(_unpinned(plan) if moved else plan, name, given)
                except TokenError as error:
                    models[name] = there or _UNLISTED
                    self.problems.append(f"{wish.seen.host}: {' '.join(error.sentences)}")
                except PlanError as error:
                    models[name] = there or _UNLISTED
                    without = "as it was" if there else "without its files"
                    self.notes.append(f"model {name} is in the lock {without}: {' '.join(error.sentences)}")
        return names

    def _with_unplanned(self, lock: Lock) -> Lock:
        """The lock with the old entries of the hosts that could not be planned now."""
        for host in self.unplanned:
            entry = self.old.hosts.get(host) if self.old else None
            if self.old is None or entry is None:
                continue
            lock.hosts[host] = entry
            if entry.stack:
                lock.stack.setdefault(entry.stack, self.old.stack[entry.stack])
            if entry.ollama:
                lock.ollama.setdefault(entry.ollama, self.old.ollama[entry.ollama])
            if entry.packages:
                lock.packages.setdefault(entry.packages, self.old.packages[entry.packages])
            if entry.driver in self.old.driver:
                lock.driver.setdefault(entry.driver, self.old.driver[entry.driver])
            for name in entry.tags:
                lock.tag.setdefault(name, self.old.tag[name])
            if entry.driver in self.old.packages:
                lock.packages.setdefault(entry.driver, self.old.packages[entry.driver])
            for name in entry.models:
                lock.model.setdefault(name, self.old.model[name])
        return lock

    def _notes(self) -> Iterator[str]:
        yield from self.notes
        yield from dict.fromkeys(
            f"{wish.vllm} instead of {refused}, which cannot be resolved: {why}"
            for wish in self.wishes.values()
            for refused, why in wish.instead_of.items()
        )


def _unpinned(plan: HostPlan) -> HostPlan:
    """The plan with models of which the hub is asked what their revisions are now."""
    models = tuple(
        model if COMMIT.fullmatch(model.revision) else dataclasses.replace(model, commit="")
        for model in plan.models
    )
    return dataclasses.replace(plan, models=models)
