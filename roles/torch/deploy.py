"""torch with transformers and accelerate, exactly as planned, and proof that it computes here."""

import shlex

from ops import environment as packages
from ops import files, task
from ops.render import render
from plan.host import BYTECODE, USER, EnvironmentPlan, HostPlan
from plan.probe import Probe

CHECK = "/opt/bringup/bin/check-torch"


def install(plan: HostPlan, probe: Probe) -> None:
    """Installs the planned wheels; multiplies matrices with them once per installation."""
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
        task=_check(environment, plan.accelerator),
        needed=environment.checked_file not in probe.paths or not packages.exact(environment, probe),
        name="Multiply matrices with torch",
    )


def _check(environment: EnvironmentPlan, accelerator: str) -> task.Task:
    """The result's name holds the pins: other pins are checked again, the same ones are not."""
    torch = environment.pins["torch"]["torch"]
    command = shlex.join([f"{environment.prefix}/bin/python", CHECK, torch, accelerator])
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
        "multiplying matrices",
        script,
        {"HOME": "/var/lib/bringup", "PYTHONPYCACHEPREFIX": BYTECODE},
    )
