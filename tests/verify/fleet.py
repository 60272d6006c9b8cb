"""The hosts under check: each with its probe, its plan and what was gathered on it, or why there is none."""

import dataclasses
import time
from dataclasses import dataclass, field
from functools import partial

import testinfra.host
from gevent.pool import Pool
from paramiko import SSHException
from pydantic import SecretStr
from pyinfra.api.host import Host

from ops import bundles, locks
from ops.planning import layers
from ops.stamp import settings_digest
from ops.version import version
from plan import model_facts, probe, secrets, settings
from plan.drift import Difference, Seen, differences
from plan.errors import PlanError
from plan.host import HostPlan
from plan.probe import PACKAGES, Probe
from roles.host import facts
from tests.verify import evidence, health
from tests.verify.connection import UnreachableError, connect, run_with_input
from tests.verify.evidence import Evidence

# Hosts that are asked at the same time.
AT_ONCE = 32


@dataclass(frozen=True)
class Planned:
    """A host that has a plan. `key` is the API key that its services ask for, `settings` their digest."""

    connection: testinfra.host.Host = field(repr=False)
    probe: Probe = field(repr=False)
    plan: HostPlan = field(repr=False)
    key: SecretStr | None
    settings: str = ""
    lock: str = ""
    # why it is no plan of the lock's, though there is one
    apart: str = ""
    # as PEM, that of the settings
    given_certificate: str | None = None

    @property
    def certificate(self) -> str | None:
        """What the front shall show to its clients, as PEM: given by the operator, or made on the host."""
        gateway = self.plan.gateway
        kinds = {"given": self.given_certificate, "own": self.probe.gateway.certificate}
        return kinds.get(gateway.certificate) if gateway else None


@dataclass
class Subject:
    """One host under check: `planned`, or a `problem` in sentences."""

    name: str
    planned: Planned | None = None
    problem: str = ""
    evidence: Evidence | None = None
    lost: str = ""
    # it could not be looked at, which says nothing about what is on it
    unreached: bool = False
    # seconds that its clock is ahead of ours
    ahead_seconds: float = 0.0
    differences: tuple[Difference, ...] = ()
    # what these are about, where a failed check has named it already
    told: set[str] = field(default_factory=set)


def consider(hosts: list[Host]) -> list[Subject]:
    """Connects to all hosts at once and plans each exactly as a deploy does."""
    return list(Pool(AT_ONCE).map(_consider, hosts))


def gather(subjects: list[Subject], deep: bool = False) -> None:
    """Gathers on all hosts at once, in one round trip each, what the checks look at."""
    Pool(AT_ONCE).map(partial(_gather, deep), [subject for subject in subjects if subject.planned])


def part(subjects: list[Subject]) -> None:
    """Closes the connections."""
    for subject in subjects:
        if subject.planned:
            subject.planned.connection.backend.pyinfra_host.disconnect()


def _consider(host: Host) -> Subject:
    try:
        return Subject(host.name, planned=_plan(host))
    except PlanError as error:
        return Subject(host.name, problem="\n".join(f"{host.name}: {line}" for line in error.sentences))
    except UnreachableError as error:
        return Subject(host.name, problem=str(error), unreached=True)
    except (OSError, EOFError, SSHException) as error:
        problem = f"{host.name}: the connection broke: {error}. Run again."
        return Subject(host.name, problem=problem, unreached=True)
    except Exception as error:
        # as in a deploy, a defect of ours costs the host that shows it, not the fleet
        return Subject(
            host.name, problem=f"{host.name}: a defect ({type(error).__name__}: {error}). Report it."
        )


def _plan(host: Host) -> Planned:
    connection = connect(host)
    answer = connection.run(facts.script(PACKAGES))
    if answer.failed:
        words = " ".join(answer.stderr.split()) or f"exit {answer.rc}"
        raise UnreachableError(f"{host.name}: lets nothing be run as the inventory says: {words}.")
    seen = probe.parse(answer.stdout)
    wanted = settings.read(layers(host))
    key = secrets.api_key(wanted.access)
    plan, apart = as_deployed(host, wanted, seen)
    return Planned(
        connection,
        seen,
        plan,
        SecretStr(key) if key is not None else None,
        settings_digest(wanted),
        locks.digest(host.name),
        apart,
        secrets.certificate(wanted.access),
    )


def as_deployed(host: Host, wanted: settings.Settings, seen: Probe) -> tuple[HostPlan, str]:
    """The plan that a deploy would make of a host, and why it is none of the lock's.

    Raises:
        PlanError: there is none.
    """
    # a deploy goes out of the way of who took a port of ours; here the plan is the one that was deployed
    free = {port: holder for port, holder in seen.listening.items() if port not in seen.unit_ports}
    calm = dataclasses.replace(seen, listening=free)
    place, server = bundles.place_for(host, wanted), bundles.server_on(host, wanted, seen)
    wanted = locks.in_bundle(host, wanted, place)
    plan, apart = locks.seen_apart(host, wanted, calm, model_facts.kept(seen))
    return dataclasses.replace(plan, bundle_server=server), apart


def _gather(deep: bool, subject: Subject) -> None:
    assert subject.planned
    began = time.time()
    try:
        key = subject.planned.key
        answer = run_with_input(
            subject.planned.connection,
            evidence.script(subject.planned.plan, deep),
            key.get_secret_value() if key else "",
        )
    except (OSError, EOFError, SSHException) as error:
        subject.lost = f"{subject.name}: the connection broke while gathering: {error}. Run again."
        return
    subject.evidence = evidence.parse(answer.text)
    if subject.evidence is None:
        words = " ".join(answer.errors.split())[-300:]
        subject.lost = f"{subject.name}: its answer broke off: {words or f'exit {answer.code}'}. Run again."
        return
    subject.ahead_seconds = health.ahead(subject.evidence.clock, began, time.time())
    subject.differences = _differences(subject.planned, subject.evidence)


def _differences(planned: Planned, gathered: Evidence) -> tuple[Difference, ...]:
    directories = {model.directory for model in planned.plan.models}
    units = {service.unit: gathered.unit(service.unit) for service in planned.plan.services}
    seen = Seen(
        stamp=gathered.stamp,
        texts=gathered.texts,
        drop_ins={unit: text["DropInPaths"] for unit, text in units.items() if text.get("DropInPaths")},
        hashes={directory: gathered.hashes(directory) for directory in directories},
    )
    found = differences(planned.plan, planned.probe, seen, planned.settings, version(), planned.lock)
    apart = [Difference("lock", "settings", planned.apart)] if planned.apart else []
    return (*apart, *found)
