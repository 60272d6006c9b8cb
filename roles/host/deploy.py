"""The ground that every other role stands on: packages, the service user, the directories."""

from collections.abc import Generator

from pyinfra.api.operation import operation
from pyinfra.context import host

from ops import beside, files, packages, task, units
from ops import stamp as stamping
from plan import leavings
from plan.host import BYTECODE, HostPlan
from plan.probe import Probe, missing_packages


def clear(plan: HostPlan, probe: Probe) -> None:
    """Stops and removes services that are no longer wanted, with their caches, before what they stand on."""
    task.clear(seen=probe.units, name="Clear away work that ended unseen")
    for unit in host.loop(plan.removed_services):
        units.gone(
            unit=unit,
            paths=(
                f"/etc/systemd/system/{unit}",
                f"/etc/bringup/previous/{unit}",
                f"/var/cache/bringup/{unit.removesuffix('.service')}",
                # the answers of a batch are the operator's
                f"/var/lib/bringup/batch/{unit.removesuffix('.service').partition('-')[2]}/input",
            ),
            seen=probe.units,
            name="Remove services no longer wanted",
        )
        beside.remove_second(unit=unit, probe=probe)


def prepare(plan: HostPlan, probe: Probe) -> None:
    """Installs the base packages, makes the unprivileged user and our directories."""
    sources = packages.sources(plan)
    if sources:
        files.write(files=sources, seen=probe.paths, name="Write the package sources")
    left = packages.left_sources(plan, probe)
    files.absent(paths=left, seen=left, name="Remove package sources that the settings no longer name")
    options = packages.options(plan)
    task.run(
        task=packages.install_task("packages", plan.base_packages, plan.package_manager, options),
        needed=bool(missing_packages(plan.base_packages, probe.packages)),
        name="Install the base packages",
    )
    wanted = leavings.user_wanted(plan)
    service_user(user=plan.user, exists=probe.user_exists or not wanted, name="Create the service user")
    files.directories(
        wanted=[
            files.Directory("/etc/bringup"),
            files.Directory("/opt/bringup"),
            files.Directory("/opt/bringup/downloads"),
            *(_directories_of(plan.user) if wanted else ()),
        ],
        seen=probe.paths,
        name="Make the directories",
    )


def _directories_of(user: str) -> list[files.Directory]:
    owner = f"{user}:{user}"
    return [
        files.Directory("/var/lib/bringup", mode="750", owner=owner),
        files.Directory("/var/cache/bringup"),
        files.Directory(BYTECODE, owner=owner),
        files.Directory("/srv/models", owner=owner),
    ]


def leave(plan: HostPlan, probe: Probe) -> None:
    """Takes the service user and its caches away from a host where nothing uses them any more."""
    no_user(
        user=plan.user,
        unused=leavings.user_unused(plan, probe),
        name="Remove the service user and its caches",
    )


def stamp(plan: HostPlan, probe: Probe) -> None:
    """Writes down what this host now is; comes last, so that only a whole deploy is stamped."""
    stamping.write(plan=plan, probe=probe, name="Write down what this host now is")


@operation()
def service_user(user: str, exists: bool) -> Generator[str, None, None]:
    """An unprivileged system user without a login or a home of its own."""
    if exists:
        host.noop(f"{user} exists")
        return
    home = "--no-create-home --home-dir /var/lib/bringup"
    yield f"useradd --system --user-group {home} --shell /usr/sbin/nologin {user}"


@operation()
def no_user(user: str, unused: bool) -> Generator[str, None, None]:
    """Takes a user away with its directories; nothing of it runs any more."""
    if not unused:
        host.noop(f"{user} is gone, or of use")
        return
    yield (
        f"rm -rf -- {' '.join(leavings.DIRECTORIES)}; rmdir --ignore-fail-on-non-empty /srv/models; "
        f"userdel {user}"
    )
