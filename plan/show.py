"""Plans as tables for a terminal: hosts with the same plan share one."""

import io
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from plan.gateway import GatewayPlan
from plan.host import EnvironmentPlan, HostPlan, ServicePlan
from plan.nvidia_plan import DriverPlan
from plan.probe_ollama import whole_name


def plans(all_plans: list[HostPlan], width: int = 110) -> str:
    """One table per distinct plan, with the hosts that get it, and the reasons of every choice."""
    groups: dict[str, list[HostPlan]] = {}
    for plan in all_plans:
        groups.setdefault(_likeness(plan), []).append(plan)
    console = Console(file=io.StringIO(), width=width, force_terminal=False, highlight=False, markup=False)
    for group in groups.values():
        console.print(_table(group))
        for warning in group[0].warnings:
            console.print(f"  warning: {warning}", style=None)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _likeness(plan: HostPlan) -> str:
    return repr([list(rows(plan)), plan.warnings])


def _table(group: list[HostPlan]) -> Table:
    table = Table(title=_hosts([plan.host for plan in group]), title_justify="left", title_style="bold")
    for column in ("part", "planned", "because"):
        table.add_column(column, overflow="fold", no_wrap=column == "part")
    for row in rows(group[0]):
        table.add_row(*row)
    return table


def _hosts(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:8])
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"Plan for {shown}{more}"


def rows(plan: HostPlan) -> Iterator[tuple[str, str, str]]:
    because = {reason.subject: reason.because for reason in plan.why}
    yield "host", f"{plan.os}; {plan.hardware}", "probed"
    no_gpu = "" if plan.accelerator == "cuda" or plan.driver.action == "remove" else "no GPU"
    yield "driver", plan.driver.summary, because.get("driver", no_gpu)
    yield from _driver(plan.driver)
    environment = plan.environment
    if environment:
        yield "python", environment.python, because.get("python", "")
        for versions in environment.pins.values():
            for name, version in versions.items():
                yield name, version, _origin(because.get(name, ""), environment, name)
    if plan.ollama and plan.ollama.archive:
        yield "ollama", plan.ollama.archive.version, f"from {plan.ollama.archive.urls[0]}"
        for tag in plan.ollama.tags:
            registry = f"pulled from {whole_name(tag.model).partition('/')[0]}"
            bundle = f"from {plan.bundle.place}" if plan.bundle and tag.manifest else ""
            yield "model", tag.model, bundle or registry
    for model in plan.models:
        yield "model", f"{model.model} @ {model.revision}", f"from {model.endpoint}"
    for service in plan.services:
        yield (
            f"serve.{service.name}",
            _service(service),
            _reach(service),
        )
    for batch in plan.batches:
        flags = " ".join(f"{name}={value}" for name, value in batch.service.flags.items())
        yield (
            f"serve.{batch.name}",
            f"batch {batch.source or batch.input} to {batch.output} {flags}",
            "reached by none",
        )
    if plan.gateway:
        yield "front", *_front(plan.gateway)
    if plan.burn_in and plan.burn_in.level:
        done = "" if plan.burn_in.needed else "passed by these GPUs with this driver"
        yield "burn-in", f"DCGM level {plan.burn_in.level}", plan.burn_in.waits or done
    for removed in (*plan.removed_services, *plan.removed_models, *plan.removed_environments):
        yield "remove", removed, "state: absent"
    for unused in (*plan.ollama.removed_tags, *plan.ollama.removed_paths) if plan.ollama else ():
        yield "remove", unused, "nothing uses it any more"


def _reach(service: ServicePlan) -> str:
    reach, way = "key required" if service.needs_key else "loopback only", service.replacing
    if way is None:
        return reach
    if way.port:
        return f"{reach}; a changed one answers before this one goes"
    return f"{reach}; stopped before a changed one starts: {way.because}"


def _front(gateway: GatewayPlan) -> tuple[str, str]:
    routes = {len(front.routes) for front in gateway.fronts}
    what = f"nginx, {'http' if gateway.certificate == 'none' else 'https'}, {max(routes)} routes"
    if gateway.certificate != "own":
        return what, "" if gateway.certificate == "none" else "with the given certificate"
    return what, f"certificate sha256 {gateway.fingerprint}" if gateway.fingerprint else "own certificate"


def _driver(driver: DriverPlan) -> Iterator[tuple[str, str, str]]:
    """What is done about the driver: installed, built, held, started."""
    work = driver.work
    origin = driver.repository.url if driver.repository else "the distribution's packages"
    if work.install:
        yield "driver", f"installs {' '.join(work.install)}", f"from {origin}"
    if work.build:
        yield "driver", f"builds the module for {', '.join(work.build)}", "next boot and this one"
    if driver.maintained and (work.install or work.hold):
        yield "driver", "holds what belongs to it", "no other upgrade moves one part of it"
    mending = driver.mending
    if mending.whole:
        yield "gpus", f"makes {len(mending.whole)} whole (MIG off)", "its services stop meanwhile"
    if mending.reset:
        yield "gpus", f"resets {len(mending.reset)}, its services stopped", mending.because
    if mending.reboot:
        yield "reboot", "yes", mending.because
    if work.start == "reboot":
        yield "reboot", "yes" if driver.reboot else "waits for yours", work.because
    elif work.start:
        yield "driver", f"{work.start}s the module", work.because


def _origin(because: str, environment: EnvironmentPlan, name: str) -> str:
    """The reason of a pin, with where this host will fetch it, which the settings may have changed."""
    reason, public, _ = because.partition("; from ")
    source = environment.only_from.get(name)
    if public and not source:
        source = ", ".join(environment.addresses.wheels_links) or None
    return "; ".join(part for part in (reason, f"from {source}") if part) if source else because


def _service(service: ServicePlan) -> str:
    flags = " ".join(f"{name}={value}" for name, value in service.flags.items())
    return f"{service.engine} on {service.listen} port {service.port} {flags}".strip()
