"""The exchange of a model between the hosts of a run, as options of its download's unit."""

import shlex
from collections.abc import Collection

from ops import fleet, packages
from ops.task import Task
from plan.exchange import Exchange, exchange
from plan.host import HostPlan
from plan.model_plan import ModelPlan

PACKAGES = ("aria2", "nftables")


def of(plan: HostPlan, model: ModelPlan) -> Exchange | None:
    """This host's part in the exchange of a model, once the plans of all hosts are known."""
    return exchange(plan.host, model, fleet.members())


def pulls(plan: HostPlan, model: ModelPlan) -> bool:
    """Whether this host gets the model from outside rather than from another host."""
    part = of(plan, model)
    return part is None or part.me in part.seeds


def options(plan: HostPlan, model: ModelPlan, firewall: str) -> list[str]:
    """Options of systemd-run: who exchanges, and root's guard before the two ports and after them.

    The unit is root's: with a user of its own the guard would need systemd's `+`, and systemd forgets such a
    command of a transient unit at its next daemon-reload (seen with 252: it writes ExecStopPostEx=, which it
    cannot read). The ports would then stay guarded for good.
    """
    part = of(plan, model)
    if part is None:
        return []
    guard = f"/bin/sh {firewall}"
    return [
        f"--setenv=BRINGUP_SHARE={part.json}",
        f"--property=ExecStartPre=-{guard} up {part.port} {part.firewall} {shlex.join(part.peers)}",
        f"--property=ExecStopPost=-{guard} down {part.port} {part.firewall}",
    ]


def install_task(manager: str, options: Collection[str] = ()) -> Task:
    """Installs aria2 and a packet filter. It never fails: a host without them pulls for itself."""
    task = packages.install_task("exchange", PACKAGES, manager, options)
    # a bundle has no EPEL, and aria2 itself where the lock's host knew it
    extra = f"{packages.DNF} install epel-release || true\n" if manager == "dnf" and not options else ""
    script = f"{extra}(\n{task.script}\n) || echo 'without aria2 this host pulls models for itself'"
    return Task(task.name, "installing what hosts exchange models with", script, task.environment)
