"""torch with transformers and accelerate, exactly as planned, and proof that it computes here."""

import json
import shlex
from dataclasses import asdict

from ops import environment as packages
from ops import files, task
from ops.render import render
from plan import figures
from plan.floors import Floor
from plan.host import BYTECODE, USER, EnvironmentPlan, HostPlan
from plan.probe import Probe

CHECK = "/opt/bringup/bin/check-torch"


def install(plan: HostPlan, probe: Probe) -> None:
    """Installs the planned wheels; computes with them once per installation, driver and set of GPUs."""
    environment = plan.environment
    if environment is None or "torch" not in environment.pins:
        return
    task.run(
        task=packages.install_task(environment, "torch", "installing torch"),
        needed=lambda: packages.lacks(environment, environment.pins["torch"], probe),
        name="Install torch, transformers and accelerate",
    )
    files.write(
        files=[files.File(CHECK, render("torch/check_torch.py"), mode="755")],
        seen=probe.paths,
        name="Write the torch check",
    )
    task.run(
        task=_check(plan, environment),
        needed=_unproved(plan, environment, probe) or not packages.exact(environment, probe),
        name="Prove that torch computes",
    )


def arguments(plan: HostPlan, environment: EnvironmentPlan) -> list[str]:
    """What the check is given: torch's version, the accelerator, what each GPU should reach."""
    floors = [floor and asdict(floor) for floor in _floors(plan)]
    return [environment.pins["torch"]["torch"], plan.accelerator, json.dumps(floors)]


def _floors(plan: HostPlan) -> tuple[Floor | None, ...]:
    """An entry per GPU that torch shall compute on."""
    return plan.gpu_floors if plan.accelerator == "cuda" else ()


def _unproved(plan: HostPlan, environment: EnvironmentPlan, probe: Probe) -> bool:
    """Whether there is no check of these pins, or one of another driver or of other GPUs."""
    found = figures.parse(probe.checks.get(environment.checked_file, ""))
    return found is None or found.outdated(probe.driver, len(_floors(plan)))


def _check(plan: HostPlan, environment: EnvironmentPlan) -> task.Task:
    """The result's name holds the pins: other pins are checked again, the same ones are not."""
    command = shlex.join([f"{environment.prefix}/bin/python", CHECK, *arguments(plan, environment)])
    result = environment.checked_file
    script = f"""
figures=$(setpriv --reuid {USER} --regid {USER} --init-groups {command})
echo "$figures"
rm -f {environment.directory}/torch-*.json
echo "$figures" >{result}.new
mv -f {result}.new {result}
"""
    return task.Task(
        "check-torch",
        "proving that torch computes",
        script,
        {"HOME": "/var/lib/bringup", "PYTHONPYCACHEPREFIX": BYTECODE},
    )
