"""`pytest tests/verify --inventory inventories/prod.py`: proves on the hosts what their plans promise.

Every check is made for each host, and for each part of that host's plan which its arguments ask for: a test
with an argument `service` runs once per service. Where something is not there, the check that is about it
fails, and the checks that stand on it are skipped with that cause. Nothing on a host is changed.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

# before anything that pyinfra makes cooperative is imported: sockets, threads
from tests.verify import inventory

# isort: split
import testinfra.host

from plan.host import EnvironmentPlan, HostPlan, ModelPlan, ServicePlan
from plan.probe import InstalledEnvironment, Probe
from tests.verify import fleet
from tests.verify.api import Api
from tests.verify.evidence import Evidence
from tests.verify.fleet import Planned, Subject

# The order of a host's bring-up is the order of its proof.
ROLES = ("test_host", "test_conda", "test_torch", "test_models", "test_vllm", "test_secrets")
SUBJECTS = pytest.StashKey[list[Subject]]()
TOLD = pytest.StashKey[list[str]]()
USAGE = "no inventory given: pytest tests/verify --inventory inventories/prod.py"


@dataclass(frozen=True)
class Case:
    """What one check is about: a host, and a part of its plan."""

    subject: Subject
    part: Any
    name: str


def _environments(plan: HostPlan) -> Iterable[tuple[Any, str]]:
    if plan.environment:
        yield plan.environment, plan.environment.name


def _pins(plan: HostPlan) -> Iterable[tuple[Any, str]]:
    parts = plan.environment.pins if plan.environment else {}
    for pins in parts.values():
        for name, version in pins.items():
            yield (name, version), f"{name} {version}"


def _models(plan: HostPlan) -> Iterable[tuple[Any, str]]:
    for model in plan.models:
        yield model, f"{model.model} @ {model.revision}"


def _services(plan: HostPlan) -> Iterable[tuple[Any, str]]:
    for service in plan.services:
        if service.engine == "vllm":
            yield service, f"{service.name} {service.served_name} on {service.port}"


def _guarded(plan: HostPlan) -> Iterable[tuple[Any, str]]:
    return ((service, name) for service, name in _services(plan) if service.needs_key)


# A test that takes an argument of this name runs once for each of these parts of a plan.
PARTS: Mapping[str, Callable[[HostPlan], Iterable[tuple[Any, str]]]] = {
    "guarded_service": _guarded,
    "service": _services,
    "model": _models,
    "pin": _pins,
    "environment": _environments,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("verify", "proof on the hosts of a pyinfra inventory")
    group.addoption("--inventory", help="the inventory, as one gives it to pyinfra")
    group.addoption(
        "--limit",
        action="append",
        default=[],
        help="only these: a group, or a pattern of host names; repeatable",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if not config.getoption("--inventory"):
        pytest.exit(USAGE, returncode=2)
    try:
        hosts = inventory.load(config.getoption("--inventory"), config.getoption("--limit"))
    except inventory.InventoryError as error:
        pytest.exit(str(error), returncode=2)
    config.stash[TOLD] = []
    config.stash[SUBJECTS] = fleet.consider(hosts)
    if config.option.tbstyle == "auto":
        config.option.tbstyle = "short"


def pytest_report_header(config: pytest.Config) -> str:
    names = [subject.name for subject in config.stash[SUBJECTS]]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"inventory: {config.getoption('--inventory')}: {shown}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    if SUBJECTS not in metafunc.config.stash:
        pytest.exit(USAGE, returncode=2)
    asked = next((name for name in PARTS if name in metafunc.fixturenames), None)
    cases = list(_cases(metafunc.config.stash[SUBJECTS], asked, "subject" in metafunc.fixturenames))
    metafunc.parametrize("case", cases, ids=[case.name for case in cases])


def _cases(subjects: list[Subject], asked: str | None, also_problems: bool) -> Iterable[Case]:
    for subject in subjects:
        if asked and subject.planned:
            for part, name in PARTS[asked](subject.planned.plan):
                yield Case(subject, part, f"{subject.name} {name}")
        elif not asked and (subject.planned or also_problems):
            yield Case(subject, None, subject.name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Host by host, in the order of the roles; a check that no plan asks for is left out."""
    order = [subject.name for subject in config.stash.get(SUBJECTS, [])]

    def place(item: pytest.Item) -> tuple[int, int]:
        case = _case(item)
        module = item.module.__name__.rpartition(".")[2] if isinstance(item, pytest.Function) else ""
        role = ROLES.index(module) if module in ROLES else len(ROLES)
        return (order.index(case.subject.name) if case else -1), role

    items[:] = sorted((item for item in items if not _of_nothing(item)), key=place)


def _case(item: pytest.Item) -> Case | None:
    case = (
        item.callspec.params.get("case")
        if isinstance(item, pytest.Function) and _parametrised(item)
        else None
    )
    return case if isinstance(case, Case) else None


def _parametrised(item: pytest.Function) -> bool:
    return hasattr(item, "callspec")


def _of_nothing(item: pytest.Item) -> bool:
    """pytest makes one item of a test whose list of cases is empty."""
    return isinstance(item, pytest.Function) and "case" in item.fixturenames and _case(item) is None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Once it is known which hosts' checks will run, all of these are gathered from at once."""
    if session.config.option.collectonly:
        return
    chosen = {
        id(case.subject): case.subject for case in map(_case, session.items) if case and case.subject.planned
    }
    if chosen:
        started = time.monotonic()
        fleet.gather(list(chosen.values()))
        hosts = f"{len(chosen)} host{'s' if len(chosen) > 1 else ''}"
        session.config.stash[TOLD].append(f"gathered from {hosts} in {time.monotonic() - started:.1f} s")


def pytest_sessionfinish(session: pytest.Session) -> None:
    fleet.part(session.config.stash.get(SUBJECTS, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if told := config.stash.get(TOLD, []):
        terminalreporter.section("what the hosts said")
        for line in told:
            terminalreporter.write_line(line)


# -- what a check can ask for --------------------------------------------------------------------------


@pytest.fixture
def subject(case: Case) -> Subject:
    """The host under check, whether or not it has a plan."""
    return case.subject


@pytest.fixture
def planned(case: Case) -> Planned:
    """The host with its plan."""
    assert case.subject.planned
    return case.subject.planned


@pytest.fixture
def plan(planned: Planned) -> HostPlan:
    """The host's plan."""
    return planned.plan


@pytest.fixture
def probe(planned: Planned) -> Probe:
    """What the probe saw when the check began."""
    return planned.probe


@pytest.fixture
def host(planned: Planned) -> testinfra.host.Host:
    """testinfra's view of the host; each question to it is a round trip, and `evidence` is here already."""
    return planned.connection


@pytest.fixture
def evidence(case: Case) -> Evidence:
    """What was gathered on the host in one round trip."""
    if case.subject.evidence is None:
        pytest.fail(case.subject.lost, pytrace=False)
    return case.subject.evidence


@pytest.fixture
def environment(case: Case, plan: HostPlan) -> EnvironmentPlan:
    """The planned environment."""
    assert plan.environment
    return plan.environment


@pytest.fixture
def installed(environment: EnvironmentPlan, case: Case, probe: Probe) -> InstalledEnvironment:
    """The environment on the host, whole."""
    there = probe.environments.get(environment.prefix)
    if there is None:
        pytest.skip(f"{case.subject.name} has no whole environment at {environment.prefix}")
    return there


@pytest.fixture
def pin(case: Case) -> tuple[str, str]:
    """A planned Python package and its version."""
    name, version = case.part
    return name, version


@pytest.fixture
def model(case: Case) -> ModelPlan:
    """A planned model."""
    assert isinstance(case.part, ModelPlan)
    return case.part


@pytest.fixture
def service(case: Case) -> ServicePlan:
    """A planned service."""
    assert isinstance(case.part, ServicePlan)
    return case.part


@pytest.fixture
def guarded_service(service: ServicePlan) -> ServicePlan:
    """A planned service that asks for a key."""
    return service


@pytest.fixture
def serving(service: ServicePlan, case: Case, evidence: Evidence) -> ServicePlan:
    """A planned service whose unit is active."""
    state = evidence.unit(service.unit).get("ActiveState") or "not there"
    if state != "active":
        pytest.skip(f"{case.subject.name}: {service.unit} is {state}")
    return service


@pytest.fixture
def api(serving: ServicePlan, planned: Planned) -> Iterable[Api]:
    """The service's API, as a client reaches it from here."""
    with Api.of(serving, planned.connection, planned.key) as opened:
        yield opened


@pytest.fixture
def tell(pytestconfig: pytest.Config, case: Case) -> Callable[[str], None]:
    """Adds a line to the end of the report."""
    return lambda text: pytestconfig.stash[TOLD].append(f"{case.subject.name}: {text}")
