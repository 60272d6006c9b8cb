"""A deploy from a bundle: every source of a host becomes a part of the bundle, and nothing else is asked."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from plan import bundle, dnf
from plan.bundle import File
from plan.bundle_plan import BundlePlan, BundleServer, Group, directory_of
from plan.errors import PlanError
from plan.host import HostPlan
from plan.lock import Host, Lock
from plan.nvidia_plan import DriverPlan
from plan.probe import Probe, missing_packages
from plan.probe_models import MANIFEST
from plan.sections import Settings

GROUPS: dict[bundle.Kind, Group] = {
    "wheels": "environment",
    "conda": "environment",
    "installers": "environment",
    "ollama": "ollama",
    "ollama-models": "ollama-models",
    "models": "models",
    "packages": "packages",
}


def settings_in(settings: Settings, lock: Lock, host: str, place: str) -> Settings:
    """The settings with every source in the bundle.

    Args:
        settings: what the operator wrote.
        lock: what the bundle was made of.
        host: its name in the inventory.
        place: the bundle, as `BundlePlan.place`.
    """
    files = bundle.of_host(lock, host)
    directory = directory_of(place)
    installer = next((file for file in files if file.kind == "installers"), None)
    # a model is large: over the net it is not brought twice
    models = f"mirror+{place}/models" if "://" in place else f"host:{directory}/models"
    wheels = {f"{directory}/{_folder(file)}" for file in files if file.kind == "wheels"}
    found = {
        "models": [models],
        "conda_channel": f"file://{directory}/conda",
        "conda_installer": f"file://{directory}/{installer.path}" if installer else None,
        "conda_installer_sha256": installer.sha256 if installer else None,
        "wheels": None,
        "wheels_extra": [],
        "wheels_links": sorted({f"{directory}/wheels", *wheels}),
        "torch": None,
        "vllm": None,
        "ollama": f"file://{directory}/ollama",
        "apt": None,
        "bundle": place,
    }
    return settings.model_copy(update={"sources": settings.sources.model_copy(update=found)})


def _folder(file: File) -> str:
    return file.path.rpartition("/")[0]


def apply(plan: HostPlan, settings: Settings, lock: Lock, place: str) -> HostPlan:
    """The plan of a host that takes everything from the bundle.

    Args:
        plan: decided from the settings of `settings_in`, and held to the lock.
        settings: these.
        lock: what the bundle was made of.
        place: the bundle.

    Raises:
        PlanError: it needs what no bundle has.
    """
    entry = lock.hosts[plan.host]
    if plan.package_manager == "apt" and not entry.packages:
        raise PlanError(
            ["sources.bundle: the lock lacks the packages of this host's system. Run `python -m plan lock`."]
        )
    plan = dataclasses.replace(plan, driver=_driver(plan.driver, settings, entry.driver in lock.packages))
    bundle_plan = BundlePlan(place, _wanted(lock, entry, bundle.of_host(lock, plan.host)))
    folder = f"{directory_of(place)}/packages"
    system = f"{folder}/{bundle.folder_of(entry.packages)}" if entry.packages else None
    driver = f"{folder}/{bundle.folder_of(entry.driver)}" if entry.driver in lock.packages else None
    if plan.package_manager == "dnf":
        directories = {"packages": system, "driver": driver}
        repository = dnf.repository({name: path for name, path in directories.items() if path})
        bundle_plan = dataclasses.replace(bundle_plan, repository=repository)
        return dataclasses.replace(plan, bundle=bundle_plan, apt_sources=None)
    bundle_plan = dataclasses.replace(bundle_plan, driver_sources=_apt_list(driver) if driver else None)
    return dataclasses.replace(plan, bundle=bundle_plan, apt_sources=_apt_list(str(system)))


def _driver(driver: DriverPlan, settings: Settings, has_it: bool) -> DriverPlan:
    if has_it:
        return dataclasses.replace(driver, repository=None, stream=None)
    if driver.action == "install" and driver.work.install and not settings.sources.nvidia:
        raise PlanError(
            [
                "sources.bundle: the lock has no packages of the NVIDIA driver, which this host lacks. Run "
                "`python -m plan lock --upgrade driver` where they can be had, or set sources.nvidia to a "
                "mirror that the host reaches."
            ]
        )
    return driver


def _apt_list(directory: str) -> str:
    """apt's list of one directory; whatever is taken from there was checked against the lock before."""
    head = "# Written by bringup from sources.bundle; edits are overwritten."
    return f"{head}\ndeb [trusted=yes] file:{directory} ./\n"


def _wanted(lock: Lock, entry: Host, files: list[File]) -> dict[Group, tuple[str, ...]]:
    """What each part of a deploy needs, as `BundlePlan` has it."""
    wanted: defaultdict[Group, list[str]] = defaultdict(list)
    for file in files:
        group: Group = "driver" if file.of == entry.driver else GROUPS[file.kind]
        wanted[group].append(f"{file.path} {file.sha256 or f'={file.path}'}")
    for driver in (True, False):
        part = [file for file in files if (file.of == entry.driver) == driver]
        for path in _made(part):
            group = "models" if bundle.is_manifest(path) else "driver" if driver else "packages"
            wanted[group].append(f"{path} ={path}")
    if entry.stack:
        uv = lock.stack[entry.stack].uv
        wanted["environment"].append(f"uv-{uv.version} {' '.join(uv.sha256)}")
    return {group: tuple(lines) for group, lines in sorted(wanted.items())}


def _made(files: Iterable[File]) -> Iterator[str]:
    """What the bundle has beside what was fetched, for these files."""
    files = list(files)
    yield from bundle.indexes(file for file in files if file.kind == "packages")
    # models/ORG/NAME/COMMIT
    models = {"/".join(file.path.split("/")[:4]) for file in files if file.kind == "models"}
    yield from (f"{folder}/{MANIFEST}" for folder in sorted(models))


def needed(plan: HostPlan, probe: Probe, environment: bool) -> tuple[Group, ...]:
    """What of the bundle this deploy will take; nothing on a host that is as planned.

    `environment`: whether its packages are not as the lock has them.
    """
    if plan.bundle is None:
        return ()
    archive = plan.ollama.archive if plan.ollama else None
    tags = plan.ollama.tags if plan.ollama else ()
    missing = [model for model in plan.models if not model.there(probe)]
    extra = ("aria2", "nftables") if missing else ()
    front = plan.gateway.packages if plan.gateway and not probe.gateway.secure_link else ()
    packages = missing_packages((*plan.base_packages, *extra, *front), probe.packages)
    tests = plan.burn_in.packages if plan.burn_in and plan.driver.maintained else ()
    driver = bool(plan.driver.work.install) or bool(missing_packages(tests, probe.packages))
    groups: dict[Group, bool] = {
        "environment": environment,
        "ollama": bool(archive and archive.version not in probe.ollama.versions),
        "ollama-models": any(tag.manifest and not tag.there(probe) for tag in tags),
        "models": bool(missing),
        # apt reads the lists of both for a driver
        "packages": bool(packages) or driver,
        "driver": driver,
    }
    return tuple(group for group, is_needed in groups.items() if is_needed and plan.bundle.wanted.get(group))


def server(settings: Settings, host: str, address: str, clients: Iterable[str], probe: Probe) -> BundleServer:
    """The server of the bundle on the host that `bundle.serve_from` names.

    Args:
        settings: of that host.
        host: its name in the inventory.
        address: where the other hosts reach it.
        clients: the addresses of all hosts.
        probe: what the host is.

    Raises:
        PlanError: it has no directory to serve, or not that address.
    """
    directory = settings.sources.bundle
    if not directory or not directory.startswith("/"):
        raise PlanError(
            [f"bundle.serve_from: {host} serves a directory of its own. Set sources.bundle to it."]
        )
    if address not in probe.addresses:
        raise PlanError(
            [f"bundle.serve_from: {address} is no address of {host}'s own. Correct ssh_hostname."]
        )
    others = sorted({*clients} - {address})
    return BundleServer(directory, address, settings.bundle.port, tuple(others))


def paths_of(wanted: Iterable[str], index: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The paths that lines of `BundlePlan.wanted` mean by an index, and the names of what it lacks."""
    by_hash: defaultdict[str, list[str]] = defaultdict(list)
    for path, digest in index.items():
        by_hash[digest].append(path)
    found: list[str] = []
    lacking = []
    for line in wanted:
        name, *tokens = line.split(" ")
        paths = [
            path
            for token in tokens
            for path in ([token[1:]] if token[1:] in index and token[0] == "=" else by_hash.get(token, []))
        ]
        found += paths
        lacking += [] if paths else [name]
    return sorted(set(found)), lacking
