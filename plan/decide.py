"""From settings and a probe to the plan of one host, or to the sentence that says why there is none."""

from collections.abc import Iterator, Mapping

from plan import (
    apt,
    burn_in,
    cautions,
    floors,
    gpus,
    model_facts,
    nvidia,
    ports,
    resolve,
    smi,
)
from plan.answer import Decision, Machine, Refusal
from plan.batch import plan_batches
from plan.environment import plan_environment
from plan.errors import PlanError
from plan.gateway_host import plan_front, removed_front
from plan.gpus import Gpu
from plan.host import (
    USER,
    HostPlan,
    OllamaPlan,
    TagPlan,
    environment_prefix,
)
from plan.model_facts import Facts
from plan.models_host import Pins, plan_downloads, plan_models, recorded_pins, removed_models
from plan.ollama_host import plan_ollama, short_of_room
from plan.probe import PciDevice, Probe
from plan.seats import Seats
from plan.sections import Service, Settings
from plan.services import compilers, plan_services
from plan.wishes import wish_for

ENGINES = ("vllm", "ollama")
ARCHITECTURES = ("x86_64", "aarch64")
# Beside the environment itself: conda, its package cache, and what a download needs until it is unpacked.
BESIDE_ENVIRONMENT_GIB = 2.0
# Below it are Kepler and its elders.
FIRST_SUPPORTED_DEVICE = 0x1340
BASE_PACKAGES = {
    "apt": ("ca-certificates", "curl", "libnuma1"),
    "dnf": ("ca-certificates", "curl", "numactl-libs"),
}


def plan_host(
    host: str, settings: Settings, probe: Probe, facts: Facts | None = None, pins: Pins | None = None
) -> HostPlan:
    """The plan of one host.

    Args:
        host: its name in the inventory.
        settings: what the operator wrote.
        probe: what the host is.
        facts: of served models that are in no table, as `plan.model_facts` keys them; those that the host
            keeps when absent.
        pins: the commits of the models' revisions; those that the host has when absent.

    Raises:
        PlanError: there is none; sentences with host, setting, fact and fix.
    """
    problems = list(_gates(probe))
    if problems:
        raise PlanError(problems)
    pins = recorded_pins(settings, probe) if pins is None else pins
    facts = model_facts.kept(probe, pins) if facts is None else facts
    manager = package_manager(probe)
    machine = _machine(settings, probe)
    present = {name: service for name, service in settings.serve.items() if service.state == "present"}
    seats = Seats(machine, present, _uuids(probe))
    decided: dict[str, Decision] = {}
    for name in seats.order:
        seat = seats.offer(name)
        decided[name] = _decide(name, present[name], settings, seat.machine, facts, probe)
        seats.take(name, seat, decided[name])
    decisions = {name: decided[name] for name in present}
    stack = _stack(settings, present, decisions, machine, probe)
    serving, answering = (
        {name: service for name, service in present.items() if service.mode == mode}
        for mode in ("serve", "batch")
    )
    services = tuple(plan_services(settings, serving, decisions, seats, probe, pins))
    models = tuple(plan_models(settings, services, pins))
    environment = plan_environment(settings, stack, probe, manager) if _wanted(settings, present) else None
    ollama = plan_ollama(settings, services, probe)
    driver = nvidia.plan_driver(settings, stack.driver, probe)
    tested = burn_in.plan_burn_in(settings.burn_in, machine.gpus, driver.release, probe)
    plan = HostPlan(
        host=host,
        os=probe.os_name,
        hardware=_hardware(machine, probe),
        accelerator=stack.accelerator,
        driver=driver,
        package_manager=manager,
        apt_sources=_apt_sources(settings, probe),
        base_packages=(*BASE_PACKAGES[manager], *compilers(manager, environment, stack), *_unpackers(ollama)),
        user=USER,
        environment=environment,
        models=models,
        services=services,
        removed_services=tuple(_removed_services(settings, probe)),
        removed_models=tuple(dict.fromkeys(removed_models(settings, models, probe))),
        removed_environments=tuple(_removed_environments(settings, probe)),
        why=tuple(
            dict.fromkeys(reason for decision in (stack, *decisions.values()) for reason in decision.why)
        ),
        warnings=cautions.warnings(settings, [stack, *decisions.values()], probe, tested, machine.gpus),
        ollama=ollama,
        downloads=plan_downloads(settings),
        model_facts=model_facts.text(settings, facts, pins),
        systemd=probe.systemd or 0,
        gateway=plan_front(settings, services, probe),
        removed_gateway=tuple(removed_front(services, probe)),
        gpu_floors=tuple(floors.floor_of(gpu) for gpu in machine.gpus),
        burn_in=tested,
        batches=tuple(plan_batches(settings, answering, decisions, seats, probe, pins)),
    )
    problems = [
        *ports.taken(plan.services, probe),
        *_room(plan, stack, decisions, probe),
        *burn_in.refusals(tested, probe),
    ]
    if plan.driver.waits:
        problems.append(plan.driver.waiting_sentence)
    if problems:
        raise PlanError(problems)
    return plan


def _apt_sources(settings: Settings, probe: Probe) -> str | None:
    if not settings.sources.apt:
        return None
    own_driver = bool(probe.gpus) and settings.driver.source == "distribution"
    return apt.source_list(settings.sources.apt, probe, with_driver=own_driver)


def package_manager(probe: Probe) -> str:
    """ "apt" or "dnf", by the distribution's family."""
    families = {probe.os_id, *probe.os_like}
    return "apt" if families & {"debian", "ubuntu"} else "dnf"


def _gates(probe: Probe) -> Iterator[str]:
    """What a host must be before anything is decided about it."""
    families = {probe.os_id, *probe.os_like}
    if probe.user_id != 0:
        yield "ssh_user: is not root. Set `_sudo = True` in the inventory, or log in as root."
    if probe.architecture not in ARCHITECTURES:
        known = " and ".join(ARCHITECTURES)
        yield f"host: its CPU is {probe.architecture}, and wheels exist for {known}. Use another host."
    if not families & {"debian", "ubuntu", "rhel", "fedora", "centos", "openeuler", "kylin"}:
        yield f"host: {probe.os_name} is not known here. Use a Debian, Ubuntu or RHEL family system."
    if probe.systemd is None:
        yield "host: systemd does not run here, and services need it. Use a host or container with systemd."


def _machine(settings: Settings, probe: Probe) -> Machine:
    """The host as a decision sees it; without its driver it is one without GPUs."""
    absent = settings.driver.managed and settings.driver.state == "absent"
    return Machine(
        gpus=() if absent else tuple(_gpus(settings, probe)),
        driver=nvidia.present_release(probe),
        os=None if probe.glibc else probe.os,
        glibc=probe.glibc,
        architecture=probe.architecture,
        driver_works=bool(_smi(probe)),
        driver_borrowed=nvidia.borrows(probe),
        modules=probe.nvidia.flavour or probe.nvidia.installed_flavour,
        memory_gib=probe.memory_gib,
        cpu_cores=probe.cpu_count,
        disk_free_gib=probe.disks["/opt"].free_gib,
    )


def _smi(probe: Probe) -> smi.SmiReport | None:
    """What nvidia-smi says of GPUs that it drives; None when there are none or it fails."""
    if not probe.smi.lstrip().startswith("<?xml"):
        return None
    report = smi.parse(probe.smi)
    return report if report.gpus else None


def _gpus(settings: Settings, probe: Probe) -> Iterator[Gpu]:
    """Every GPU on the bus; one that the tables do not know is described by its driver."""
    report = _smi(probe)
    if report and len(report.gpus) >= len(probe.gpus):
        made_whole = settings.driver.mig == "off" and nvidia.manageable(settings, probe)
        yield from (_described(gpu, made_whole) for gpu in report.gpus)
        return
    for device in probe.gpus:
        try:
            yield gpus.lookup(device.device_id)
        except gpus.UnknownGpuError as error:
            raise PlanError([f"GPU {device.address}: {_too_old(device) or error}"]) from None


def _too_old(device: PciDevice) -> str:
    """Why no driver in support drives this card; "" where one may. Source: PCI ids in Getty/rex-gpu."""
    if int(device.device_id, 16) >= FIRST_SUPPORTED_DEVICE:
        return ""
    return (
        f"PCI id 10de:{device.device_id.removeprefix('0x')} is older than Maxwell, and no driver in support "
        "serves it. Use another card."
    )


def _uuids(probe: Probe) -> tuple[str, ...]:
    """What the driver calls each GPU, in the order of `_gpus`; empty when it does not say so of all."""
    report = _smi(probe)
    names = [gpu.uuid for gpu in report.gpus] if report and len(report.gpus) >= len(probe.gpus) else []
    return tuple(name for name in names if name) if all(names) else ()


def _described(gpu: smi.SmiGpu, made_whole: bool) -> Gpu:
    """A GPU as its driver describes it."""
    if gpu.mig and not made_whole:
        raise PlanError(
            [
                f"GPU {gpu.name}: is cut into MIG instances, which are not planned. Run `nvidia-smi -mig 0`, "
                "or set driver.mig to off."
            ]
        )
    try:
        return gpus.from_driver(
            name=gpu.name,
            pci_device_id=gpu.pci_device_id,
            memory_mib=gpu.memory_mib,
            compute_capability=gpu.compute_capability,
            reserved_mib=gpu.reserved_mib,
        )
    except gpus.UnknownGpuError as error:
        raise PlanError([f"GPU {gpu.name}: {error}"]) from None


def _decide(
    name: str | None,
    service: Service | None,
    settings: Settings,
    machine: Machine,
    facts: Facts,
    probe: Probe,
) -> Decision:
    """The stack for one service, or for an environment without one."""
    model = facts.get(model_facts.key(service)) if service else None
    answer = resolve.decide(machine, nvidia.bound(wish_for(service, settings), settings, probe), model)
    if isinstance(answer, Refusal):
        setting = f"serve.{name}" if name else "environment"
        fixes = " Or: ".join(answer.fixes[:3]) or "Change that, or use another host."
        raise PlanError(
            [f"{setting}: {failure.constraint}: {failure.fact}. {fixes}".strip() for failure in answer.failed]
        )
    return answer


def _stack(
    settings: Settings,
    present: dict[str, Service],
    decisions: dict[str, Decision],
    machine: Machine,
    probe: Probe,
) -> Decision:
    """What the environment is made of; on a host that needs none, what its services by Ollama stand on."""
    stack = _one_stack({name: made for name, made in decisions.items() if made.engine == "vllm"})
    if stack is None and decisions and not _wanted(settings, present):
        return next(iter(decisions.values()))
    return stack or _decide(None, None, settings, machine, {}, probe)


def _one_stack(decisions: dict[str, Decision]) -> Decision | None:
    """All services by vLLM of a host live in one environment, so their pins have to agree."""
    stacks = {(decision.python, decision.torch, decision.vllm): name for name, decision in decisions.items()}
    if len(stacks) > 1:
        (one, first), (other, second), *_ = stacks.items()
        raise PlanError(
            [
                f"serve.{second}: needs vLLM {other[2]} with torch {other[1]}, serve.{first} vLLM {one[2]} "
                f"with torch {one[1]}, and a host has one environment. Pin `vllm` alike, or use two hosts."
            ]
        )
    return next(iter(decisions.values()), None)


def _wanted(settings: Settings, present: dict[str, Service]) -> bool:
    downloads = any(model.state == "present" for model in settings.models.downloads.values())
    served = any(service.engine == "vllm" for service in present.values())
    return settings.environment.state == "present" and (served or downloads)


def _unpackers(ollama: OllamaPlan | None) -> Iterator[str]:
    """The packages of what unpacks Ollama's archive; gzip is on every host, tar not on the smallest."""
    if ollama and ollama.archive:
        yield "tar"
        if ollama.archive.packer != "gzip":
            yield ollama.archive.packer


def _removed_services(settings: Settings, probe: Probe) -> Iterator[str]:
    """Units of services that shall go, whatever served them, and of those that another engine serves now."""
    for name, service in settings.serve.items():
        for engine in ENGINES:
            unit = f"{engine}-{name}.service"
            if unit in probe.units and (service.state == "absent" or service.engine != engine):
                yield unit


def _removed_environments(settings: Settings, probe: Probe) -> Iterator[str]:
    prefix = environment_prefix(settings.environment.name)
    if settings.environment.state == "absent" and prefix in probe.environments:
        yield prefix


def _hardware(machine: Machine, probe: Probe) -> str:
    """For the operator's eyes: the GPUs, or the CPU."""
    if not machine.gpus:
        return f"{probe.cpu_count} CPUs, {probe.memory_gib:.0f} GiB, no GPU"
    names = [gpu.name for gpu in machine.gpus]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def _room(plan: HostPlan, stack: Decision, decisions: Mapping[str, Decision], probe: Probe) -> Iterator[str]:
    """Disks that cannot hold what is not there yet."""
    opt, models = probe.disks["/opt"], probe.disks["/srv/models"]
    environment = 0.0
    if plan.environment and plan.environment.prefix not in probe.environments:
        environment = stack.environment_gib + BESIDE_ENVIRONMENT_GIB
    missing = {
        service.model: service.name
        for service in plan.engines
        if not isinstance(service.model, TagPlan) and not service.model.there(probe)
    }
    fits = ((model, decisions[name].memory) for model, name in missing.items())
    needed = sum(max(0.0, fit.disk_gib - model.begun_gib(probe)) for model, fit in fits if fit)
    if opt.free_gib < environment:
        yield (
            f"disk: /opt has {opt.free_gib:.1f} GiB free, the environment needs {environment:.0f}. "
            "Make room there."
        )
    if models.free_gib < needed:
        yield (
            f"disk: /srv/models has {models.free_gib:.1f} GiB free, the models need {needed:.0f}. "
            "Make room there."
        )
    elif opt.device == models.device and environment <= opt.free_gib < environment + needed:
        yield (
            f"disk: /opt and /srv/models are one disk with {opt.free_gib:.1f} GiB free, the environment "
            f"needs {environment:.0f} and the models {needed:.0f}. Make room there."
        )
    yield from short_of_room(plan.ollama, probe) if plan.ollama else ()
