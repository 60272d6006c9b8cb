"""A bundle: checked, file by file, before anything on a host is changed; served to the others where asked."""

import hashlib
import shlex

from pyinfra.context import host

from ops import bundle_upload, environment, files, packages, task, units
from ops.render import render
from plan import bundled
from plan.bundle_plan import (
    SERVER_DIRECTORY,
    SERVER_UNIT,
    SERVER_UNIT_FILE,
    STAGED,
    BundlePlan,
    BundleServer,
    Group,
)
from plan.host import HostPlan
from plan.probe import Probe

# Lies in /run: it is of use to this run alone.
WANTED = "/run/bringup/bundle-wanted"
CONFIGURATION = f"{SERVER_DIRECTORY}/nginx.conf"
START_SECONDS = 60


def check(plan: HostPlan, probe: Probe) -> tuple[Group, ...]:
    """Brings and checks what this deploy takes from the bundle. A damaged file ends it here, by name."""
    groups = _needed(plan, probe)
    bundle = plan.bundle or BundlePlan("/", {})
    wanted = [line for group in groups for line in bundle.wanted[group]]
    text = "".join(f"{line}\n" for line in wanted)
    files.write(
        files=[files.File(WANTED, text)] if wanted else [],
        seen={},
        lasting=False,
        name="Write what is needed of the bundle",
    )
    bundle_upload.send(plan=bundle, wanted=wanted, name="Send the bundle from the operator's machine")
    task.run(
        task=_check(bundle.directory, WANTED, bundle.place if bundle.kind == "url" else ""),
        needed=bool(wanted),
        name="Check the bundle",
    )
    return groups


def tidy(plan: HostPlan, probe: Probe, taken: tuple[Group, ...]) -> None:
    """Removes what was brought of a bundle that lies elsewhere, once it is installed."""
    brought = bool(taken) and plan.bundle is not None and plan.bundle.directory == STAGED
    files.absent(
        paths=[STAGED], seen=[STAGED] if brought else [], name="Remove what was brought of the bundle"
    )


def serve(plan: HostPlan, probe: Probe) -> None:
    """Serves the bundle to the other hosts; or takes the server away where nothing asks for it."""
    server = plan.bundle_server
    unwanted = {} if server or SERVER_UNIT not in probe.units else {SERVER_UNIT: probe.units[SERVER_UNIT]}
    units.gone(
        unit=SERVER_UNIT,
        paths=[SERVER_UNIT_FILE, SERVER_DIRECTORY],
        seen=unwanted,
        name="Remove the bundle's server",
    )
    wanted = _server_files(server) if server else []
    unit = probe.units.get(SERVER_UNIT)
    changed = any(file.differs(probe.paths.get(file.path)) for file in wanted)
    task.run(
        task=_check(server.directory if server else "/", "all", ""),
        needed=bool(wanted) and (changed or unit is None or not unit.serves),
        name="Check the whole bundle",
    )
    task.run(
        task=_nginx(plan),
        needed=bool(wanted) and not probe.gateway.nginx,
        name="Install nginx for the bundle",
    )
    written = files.write(files=wanted, seen=probe.paths, name="Write the bundle's server")
    for name in host.loop([SERVER_UNIT] if server else []):
        units.serving(
            service=units.Service(name, "bundle", START_SECONDS),
            seen=probe.units,
            because=[written],
            name="Serve the bundle",
        )


def _needed(plan: HostPlan, probe: Probe) -> tuple[Group, ...]:
    there = plan.environment
    incomplete = there is not None and (
        environment.leaves_lock(there, probe) or not environment.exact(there, probe)
    )
    groups = bundled.needed(plan, probe, incomplete)
    # over the net a model is checked as it comes, in a place of its own
    over_the_net = plan.bundle is not None and plan.bundle.kind == "url"
    models = ("models", "ollama-models") if over_the_net else ()
    return tuple(group for group in groups if group not in models)


def _check(directory: str, wanted: str, url: str) -> task.Task:
    words = shlex.join(["set", "--", directory, wanted, *([url] if url else [])])
    return task.Task("bundle", "checking the bundle", f"{words}\n{render('bundle/check.sh')}")


def _nginx(plan: HostPlan) -> task.Task:
    """nginx without its own service, which would listen on port 80 of all addresses."""
    options = packages.options(plan)
    install = packages.install_task("bundle-packages", ("nginx",), plan.package_manager, options)
    # it comes before the ground, which writes these as well
    written = "".join(
        f"install -D /dev/null {path} && printf %s {shlex.quote(file.text)} >{path} && chmod 644 {path}\n"
        for file in packages.sources(plan)
        for path in [shlex.quote(file.path)]
    )
    return _masked(task.Task(install.name, install.label, written + install.script, install.environment))


def _masked(install: task.Task) -> task.Task:
    script = f"""systemctl --quiet mask --runtime nginx.service
{install.script}
systemctl --quiet disable nginx.service 2>/dev/null || true
systemctl --quiet unmask --runtime nginx.service"""
    return task.Task(install.name, install.label, script, install.environment)


def _server_files(server: BundleServer) -> list[files.File]:
    configuration = render("bundle/nginx.conf.j2", server=server)
    digest = hashlib.sha256(configuration.encode()).hexdigest()[:12]
    unit = render(f"bundle/{SERVER_UNIT}.j2", server=server, configuration=CONFIGURATION, digest=digest)
    return [files.File(CONFIGURATION, configuration), files.File(SERVER_UNIT_FILE, unit)]
