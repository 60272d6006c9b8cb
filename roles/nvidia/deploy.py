"""The NVIDIA driver: installed, built for the kernel that boots next, held, put to work, kept running."""

import shlex
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta, operation
from pyinfra.api.state import State
from pyinfra.context import host

from ops import files, task, units
from ops.reboot import reboot
from ops.remote import Remote, privileges
from ops.render import render
from ops.waiting import say
from plan import gpu_health, nvidia_table
from plan.host import HostPlan
from plan.nvidia import FABRIC, MEMORY_EXCHANGE, PERSISTENCE
from plan.nvidia_plan import DIRECTORY, PROGRAM, WAITING, DriverPlan
from plan.nvidia_words import plan_text
from plan.probe import Probe

PLAN = f"{DIRECTORY}/plan"
NODES = "/etc/nvidia-imex/nodes_config.cfg"
OVERRIDE = "/etc/systemd/system/nvidia-persistenced.service.d/bringup.conf"


def install(plan: HostPlan, probe: Probe) -> None:
    """Makes the driver part of the plan true; a host that waits for a reboot ends here, with a sentence."""
    driver = plan.driver
    if driver.action == "remove":
        _remove(probe)
    if not driver.maintained:
        return
    files.directories(
        wanted=[files.Directory("/opt/bringup/bin"), files.Directory(DIRECTORY)],
        seen=probe.paths,
        name="Make the driver's directories",
    )
    written = files.write(
        files=list(_files(plan, driver)),
        seen=probe.paths,
        name="Write what the driver shall be",
    )
    work = driver.work
    installed = task.run(
        # the same words whatever is missing, so that a run after a cut joins what is under way
        task=_task("install"),
        needed=work.needed,
        name="Install the NVIDIA driver",
    )
    # after the package, which would ask about a file that it brings itself
    nodes = files.write(
        files=[files.File(NODES, "\n".join([*driver.imex_nodes, ""]))] if driver.imex_nodes else [],
        seen=probe.paths,
        name="Write the hosts of the NVLink domain",
    )
    # where a reboot is allowed, finding out that only that helps is no failure
    only_a_reboot_helps = {"SuccessExitStatus": "3"} if driver.reboot else {}
    task.run(
        task=replace(_task("start"), properties=only_a_reboot_helps),
        needed=work.start in ("load", "reload"),
        name="Put the NVIDIA driver to work",
    )
    mending = driver.mending
    task.run(
        task=replace(
            _task("mend", *(f"mig={gpu}" for gpu in mending.whole), *mending.reset),
            properties=only_a_reboot_helps,
        ),
        needed=mending.needed,
        name="Mend the GPUs that ask for it",
    )
    task.run(
        task=_task("forget", *driver.forget),
        needed=bool(driver.forget),
        name="Forget reboots that have helped",
    )
    _reboot(driver)
    if not work.start:
        # a fabric manager that restarts takes every GPU from who uses it: for its own packages only
        packages = [installed] if work.install else []
        _daemons(driver, probe, packages, {PERSISTENCE: [written], MEMORY_EXCHANGE: [nodes]})


def _files(plan: HostPlan, driver: DriverPlan) -> Iterator[files.File]:
    yield files.File(PROGRAM, render("nvidia/driver.sh"), mode="755")
    yield files.File(PLAN, plan_text(plan, driver))
    yield files.File("/etc/modprobe.d/bringup-nvidia.conf", render("nvidia/modprobe.conf"))
    if PERSISTENCE in driver.units:
        yield files.File(OVERRIDE, render("nvidia/persistenced.conf"))
    if driver.modules_to_load:
        yield files.File("/etc/modules-load.d/bringup-nvidia.conf", "\n".join([*driver.modules_to_load, ""]))
    if driver.manager == "apt":
        patterns = nvidia_table.pinned_patterns()
        wanted = f"{driver.pinned}*" if driver.pinned else f"{driver.branch}.*"
        yield files.File(
            "/etc/apt/preferences.d/bringup-nvidia",
            render("nvidia/preferences.j2", patterns=patterns, version=wanted, versions=driver.versions),
        )
        yield files.File("/etc/apt/apt.conf.d/52bringup-nvidia", render("nvidia/unattended.conf"))
    else:
        yield files.File("/etc/dracut.conf.d/90-bringup-nvidia.conf", render("nvidia/dracut.conf"))
        if driver.repository:
            text = render("nvidia/repository.repo.j2", repository=driver.repository)
            yield files.File("/etc/yum.repos.d/bringup-nvidia.repo", text)


def _task(*words: str) -> task.Task:
    labels = {
        "install": "installing the NVIDIA driver",
        "start": "putting the NVIDIA driver to work",
        "mend": "mending GPUs",
        "modules": "loading what the fabric manager needs",
        "forget": "forgetting reboots that have helped",
    }
    return task.Task("driver", labels.get(words[0], "the NVIDIA driver"), shlex.join(["sh", PROGRAM, *words]))


def _reboot(driver: DriverPlan) -> None:
    """The reboot where it is allowed; else the host is left waiting, which it and the next run know."""
    work = driver.work
    mending = driver.mending
    wanted = work.start == "reboot" or bool(mending.reboot)
    perhaps = bool(work.start or mending.needed or mending.reboot) and driver.reboot
    before = shlex.join(
        ["sh", PROGRAM, "before_reboot", *(mending.reboot or (*mending.whole, *mending.reset))]
    )
    note = f"echo {shlex.quote(work.because)} >{WAITING}"
    if driver.reboot:
        reboot(
            label=f"reboot ({work.because or mending.because})",
            before=f"{before} 2>&1",
            only_if="true" if wanted else f"test -e {WAITING}",
            needed=perhaps,
            name="Reboot into the new driver",
        )
        task.run(task=_task("settle"), needed=perhaps, name="Look at the driver after the reboot")
    else:
        left_waiting(
            sentence=driver.waiting_sentence,
            note=f"mkdir -p /run/bringup && {note}",
            needed=work.start == "reboot",
            name="Wait for a reboot of yours",
        )


@operation()
def left_waiting(sentence: str, note: str, needed: bool) -> Generator[PyinfraCommand, None, None]:
    """Writes down that the host waits for a reboot, says so, and ends this host's run."""
    if not needed:
        host.noop("nothing waits for a reboot")
        return
    yield FunctionCommand(_leave, (sentence, note, privileges()), {})


def _leave(state: State, host: Host, sentence: str, note: str, given: dict[str, Any]) -> bool:
    remote = Remote(host, given)
    remote.run(note)
    say(remote, "reboot pending", sentence, logger.error)
    return False


def _daemons(
    driver: DriverPlan,
    probe: Probe,
    packages: list[OperationMeta],
    files_of: Mapping[str, list[OperationMeta]],
) -> None:
    """The daemons beside the module; the fabric manager after the modules that it looks for."""
    fabric = probe.units.get(FABRIC)
    task.run(
        # from the next boot on they are loaded before it
        task=_task("modules"),
        needed=bool(driver.modules_to_load) and not (fabric and fabric.serves),
        name="Load what the fabric manager needs",
    )
    for unit in host.loop(driver.units):
        _keep_running(unit, probe, [*packages, *files_of.get(unit, [])])


def _keep_running(unit: str, probe: Probe, because: list[OperationMeta]) -> None:
    """A daemon beside the module: enabled, active, restarted when the driver has changed."""
    if unit in probe.units or unit != PERSISTENCE:
        units.serving(
            service=units.Service(unit, unit.removesuffix(".service"), 120),
            seen=probe.units,
            because=because,
            restart=unit == PERSISTENCE and gpu_health.persistence(probe) is False,
            name="Keep the driver's daemon running",
        )


def _remove(probe: Probe) -> None:
    files.write(
        files=[files.File(PROGRAM, render("nvidia/driver.sh"), mode="755")],
        seen=probe.paths,
        lasting=False,
        name="Write what removes the driver",
    )
    task.run(task=_task("remove"), name="Remove the NVIDIA driver")
