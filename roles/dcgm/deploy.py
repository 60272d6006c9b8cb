"""DCGM, and NVIDIA's diagnostic of the GPUs before anything is served from them."""

import json
import shlex
from collections.abc import Generator
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import host

from ops import packages, task
from ops.remote import Remote, privileges
from ops.waiting import say
from plan import burn_in as burn
from plan.apt import PARTS
from plan.burn_in import BurnInPlan
from plan.host import HostPlan
from plan.nvidia_plan import PROGRAM
from plan.probe import Probe, missing_packages

LABEL = "testing the GPUs"
SERVICE = "systemctl --quiet"
HINT = (
    "DCGM cannot be installed. It comes from NVIDIA's package repository: set driver.source to nvidia, "
    "or add that repository to the host."
)
# where the driver, and with it DCGM, comes from a bundle
HINT_OF_A_BUNDLE = (
    "DCGM cannot be installed from the bundle. If its lock was made without burn_in, run `python -m plan "
    "lock --upgrade driver`, and make the bundle anew."
)


def burn_in(plan: HostPlan, probe: Probe) -> None:
    """Installs DCGM and tests the GPUs, once for the same GPUs and driver; or takes DCGM away."""
    wanted = plan.burn_in
    if wanted is None:
        return
    if wanted.level is None:
        task.run(task=_removal(plan, wanted), needed=wanted.needed, name="Remove DCGM")
        return
    now = wanted.needed and not wanted.waits
    task.run(
        task=_installation(plan, wanted),
        needed=now or bool(missing_packages(wanted.packages, probe.packages)),
        name="Install DCGM",
    )
    task.run(task=_diagnostic(wanted), needed=now, name="Test the GPUs with DCGM")
    judged(needed=now, name="Read what DCGM found")


def _installation(plan: HostPlan, wanted: BurnInPlan) -> task.Task:
    names = plan.driver.exactly(wanted.packages)
    # it comes from where the driver comes from; beside one that is kept, from the host's own sources
    options = packages.options(plan, PARTS) if plan.driver.maintained else ()
    hint = HINT_OF_A_BUNDLE if plan.bundle and options else HINT
    install = packages.install_task("dcgm", names, plan.package_manager, options)
    script = (
        f"({install.script}) || {{ echo {shlex.quote(hint)}; exit 1; }}\n{SERVICE} enable --now nvidia-dcgm"
    )
    if plan.driver.maintained:
        # from now on no upgrade moves it away from the driver
        script += f"\nsh {PROGRAM} hold"
    return task.Task("dcgm", install.label, script, install.environment)


def _diagnostic(wanted: BurnInPlan) -> task.Task:
    """Records what dcgmi says with what it was said of; the verdict is read from that."""
    script = f"""
{SERVICE} start nvidia-dcgm
dcgmi diag -r {wanted.level} -j >{burn.RESULT}.said 2>&1 </dev/null && code=0 || code=$?
driver=$(cat /sys/module/nvidia/version 2>/dev/null || true)
{{
    printf '{{"level": {wanted.level}, "driver": "%s", "exit": %s, "gpus": ' "$driver" "$code"
    printf %s {shlex.quote(json.dumps(wanted.gpus))}
    if grep -q '^[[:space:]]*{{' {burn.RESULT}.said; then
        printf ', "result": '; sed -n '/^[[:space:]]*{{/,$p' {burn.RESULT}.said
    else
        # what it says instead, without the signs that JSON would take for its own
        printf ', "words": "%s"' "$(tr -c '[:alnum:] .,:;()/_-' ' ' <{burn.RESULT}.said | cut -c 1-400)"
    fi
    echo '}}'
}} >{burn.RESULT}.new
rm -f {burn.RESULT}.said
mv -f {burn.RESULT}.new {burn.RESULT}
"""
    return task.Task("burn-in", LABEL, script)


def _removal(plan: HostPlan, wanted: BurnInPlan) -> task.Task:
    names = shlex.join(wanted.packages)
    purge = (
        f"{packages.DNF} remove {names}" if plan.package_manager == "dnf" else f"{packages.APT} purge {names}"
    )
    release = "dnf versionlock delete" if plan.package_manager == "dnf" else "apt-mark unhold"
    steps = [f"{SERVICE} disable --now nvidia-dcgm 2>/dev/null || true", f"rm -f {burn.RESULT}"]
    steps += [f"{release} {names} >/dev/null 2>&1 || true"] if names else []
    script = "\n".join([*steps, *([purge] if names else [])])
    return task.Task("dcgm", "removing DCGM", script, {"DEBIAN_FRONTEND": "noninteractive"})


@operation()
def judged(needed: bool) -> Generator[PyinfraCommand, None, None]:
    """Fails this host when a GPU failed its test; says which settings of the host DCGM dislikes."""
    if not needed:
        host.noop("the GPUs are as they were tested")
        return
    yield FunctionCommand(_judge, (privileges(),), {})


def _judge(state: State, host: Host, given: dict[str, Any]) -> bool:
    remote = Remote(host, given)
    found = burn.read(remote.run(f"cat {burn.RESULT}").text)
    for sentence in found.warnings:
        say(remote, LABEL, f"warning: {sentence}", logger.warning)
    for sentence in found.failures:
        say(remote, LABEL, sentence, logger.error)
    return not found.failures
