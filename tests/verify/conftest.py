"""`pytest tests/verify --inventory inventories/prod.py`: proves on the hosts what their plans promise.

Every check is made for each host, and for each part of that host's plan which its arguments ask for: a test
with an argument `service` runs once per service. Where something is not there, the check that is about it
fails, and the checks that stand on it are skipped with that cause. Nothing on a host is changed.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# before anything that pyinfra makes cooperative is imported: sockets, threads
from tests.verify import inventory

# isort: split
import testinfra.host
from pyinfra.api.host import Host

from ops.files import Directory
from plan.gateway import UNIT as FRONT
from plan.gateway import GatewayPlan
from plan.hardening import Confined
from plan.host import BatchPlan, EnvironmentPlan, HostPlan, ServicePlan
from plan.model_plan import ModelPlan
from plan.probe import InstalledEnvironment, Probe
from plan.report import Figure
from tests.verify import fleet, health
from tests.verify.api import Api, is_shut_out
from tests.verify.cases import Case, cases
from tests.verify.evidence import MODULES, Evidence
from tests.verify.fleet import Planned, Subject
from tests.verify.reporting import FIGURES, SUBJECTS, Reporting, case_of

# The order of a host's bring-up is the order of its proof.
ROLES = (
    "test_host",
    "test_gpu",
    "test_conda",
    "test_torch",
    "test_models",
    "test_vllm",
    "test_offline",
    "test_ollama",
    "test_gateway",
    "test_units",
    "test_secrets",
    "test_drift",
)
DEEP = "test_offline.py"
HOSTS = pytest.StashKey[list[Host]]()
TOLD = pytest.StashKey[list[str]]()
USAGE = "No inventory given: pytest tests/verify --inventory inventories/prod.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("verify", "proof on the hosts of a pyinfra inventory")
    group.addoption(
        "--inventory", help="the inventory, as one gives it to pyinfra (this machine: --inventory=@local)"
    )
    group.addoption(
        "--limit",
        action="append",
        default=[],
        help="only these: a group, or a pattern of host names; repeatable",
    )
    group.addoption(
        "--deep",
        action="store_true",
        help="models generate without a server as well: a minute, and a model's memory, on every host",
    )


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Reads the inventory; where there is nothing to check, one sentence and exit code 2."""
    if config.option.help or config.option.version:
        return None
    # a plugin for other tests of ours, which takes a second to end
    config.pluginmanager.unregister(name="hypothesispytest")
    try:
        if not config.getoption("--inventory"):
            raise inventory.InventoryError(USAGE)
        config.stash[HOSTS] = inventory.load(config.getoption("--inventory"), config.getoption("--limit"))
        config.pluginmanager.register(Reporting(config.getoption("--inventory"), config.stash[HOSTS]))
    except inventory.InventoryError as error:
        print(error, file=sys.stderr)
        return 2
    return None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What takes long is made where it is asked for."""
    return True if collection_path.name == DEEP and not config.getoption("--deep") else None


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    config.stash[TOLD] = []
    config.stash[SUBJECTS] = fleet.consider(config.stash[HOSTS])
    if config.option.tbstyle == "auto":
        config.option.tbstyle = "short"


def pytest_report_header(config: pytest.Config) -> str:
    names = [subject.name for subject in config.stash[SUBJECTS]]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"inventory: {config.getoption('--inventory')}: {shown}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    # none where these checks are collected among other tests, without an inventory
    found = list(cases(metafunc.config.stash.get(SUBJECTS, []), metafunc.fixturenames))
    metafunc.parametrize("case", found, ids=[case.name for case in found])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Host by host, in the order of the roles; a check that no plan asks for is left out."""
    order = [subject.name for subject in config.stash.get(SUBJECTS, [])]

    def place(item: pytest.Item) -> tuple[int, int]:
        case = case_of(item)
        module = item.module.__name__.rpartition(".")[2] if isinstance(item, pytest.Function) else ""
        role = ROLES.index(module) if module in ROLES else len(ROLES)
        return (order.index(case.subject.name) if case else -1), role

    items[:] = sorted((item for item in items if not _of_nothing(item)), key=place)


def _of_nothing(item: pytest.Item) -> bool:
    """pytest makes one item of a test whose list of cases is empty."""
    return isinstance(item, pytest.Function) and "case" in item.fixturenames and case_of(item) is None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Once it is known which hosts' checks will run, all of these are gathered from at once."""
    if session.config.option.collectonly:
        return
    chosen = {
        id(case.subject): case.subject
        for case in map(case_of, session.items)
        if case and case.subject.planned
    }
    if chosen:
        started = time.monotonic()
        fleet.gather(list(chosen.values()), session.config.getoption("--deep"))
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
        pytest.skip(case.subject.lost)
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
def directory(case: Case) -> Directory:
    """A directory that every host has."""
    assert isinstance(case.part, Directory)
    return case.part


@pytest.fixture
def pin(case: Case) -> tuple[str, str]:
    """A planned Python package and its version."""
    name, version = case.part
    return name, version


@pytest.fixture
def torch(pin: tuple[str, str]) -> str:
    """The planned version of torch."""
    return pin[1]


@pytest.fixture
def module(pin: tuple[str, str]) -> tuple[str, str]:
    """The module of a planned Python package that is tried by its import, and its version."""
    name, version = pin
    return MODULES[name], version


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
def batch(case: Case) -> BatchPlan:
    """A planned batch."""
    assert isinstance(case.part, BatchPlan)
    return case.part


@pytest.fixture
def guarded_service(service: ServicePlan) -> ServicePlan:
    """A planned service that asks for a key."""
    return service


@pytest.fixture
def offline(service: ServicePlan, installed: InstalledEnvironment, probe: Probe) -> ServicePlan:
    """A planned service whose model and environment are there, so that they work without a server."""
    assert installed.conda
    if not service.model.there(probe):
        pytest.skip(f"there is no whole model at {service.model.directory}")
    return service


@pytest.fixture
def confined(case: Case) -> Confined:
    """A unit of ours with the exposure that it may have."""
    assert isinstance(case.part, Confined)
    return case.part


@pytest.fixture
def gateway(case: Case) -> GatewayPlan:
    """The planned front."""
    assert isinstance(case.part, GatewayPlan)
    return case.part


@pytest.fixture
def ollama_service(service: ServicePlan) -> ServicePlan:
    """A planned service by Ollama."""
    return service


@pytest.fixture
def guarded_services(case: Case) -> list[ServicePlan]:
    """All of a host's planned services that ask for the key."""
    return list(case.part)


@pytest.fixture
def serving(service: ServicePlan, case: Case, evidence: Evidence) -> ServicePlan:
    """A planned service whose unit is active."""
    state = evidence.unit(service.unit).get("ActiveState") or "not there"
    if state != "active":
        pytest.skip(f"{case.subject.name}: {service.unit} is {state}")
    return service


@pytest.fixture
def api(serving: ServicePlan, planned: Planned, evidence: Evidence) -> Iterator[Api]:
    """The service's API, as a client reaches it from here, through the front if there is one."""
    front = evidence.unit(FRONT).get("ActiveState") or "not there"
    if serving.fronted and front != "active":
        pytest.skip(f"{planned.plan.host}: {FRONT} is {front}")
    if any(health.certificates(planned.plan.gateway, evidence)):
        pytest.skip(f"{planned.plan.host}: the front's certificate is not valid")
    if is_shut_out(serving, planned):
        pytest.skip(f"{planned.plan.host}: this machine is not among access.clients")
    with Api.of(serving, planned, planned.key) as opened:
        yield opened


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[[Figure], None]:
    """Adds a figure to the report."""
    figures: list[Figure] = request.node.stash.setdefault(FIGURES, [])
    return figures.append


@pytest.fixture
def tell(
    pytestconfig: pytest.Config, case: Case, record_testsuite_property: Callable[[str, object], None]
) -> Callable[[str], None]:
    """Adds a line about the host to the end of the report, and to the JUnit file."""

    def add(text: str) -> None:
        pytestconfig.stash[TOLD].append(f"{case.subject.name}: {text}")
        record_testsuite_property(case.subject.name, text)

    return add
