"""vLLM services: one systemd unit each, active only when the model has answered."""

from functools import partial

from pyinfra.api.operation import OperationMeta
from pyinfra.context import host

from ops import beside, files, task, units
from ops import environment as packages
from ops.render import render
from plan import operator_flags
from plan.host import BYTECODE, USER, EnvironmentPlan, HostPlan, ServicePlan
from plan.probe import Probe

READY = "/opt/bringup/bin/wait-until-ready"


def install(plan: HostPlan, probe: Probe) -> OperationMeta | None:
    """Installs the planned vLLM into the environment."""
    environment = plan.environment
    if environment is None or "vllm" not in environment.pins:
        return None
    return task.run(
        task=packages.install_task(environment, "vllm", "installing vLLM"),
        needed=lambda: packages.lacks(environment, environment.pins["vllm"], probe),
        name="Install vLLM",
    )


def serve(plan: HostPlan, probe: Probe, installed: OperationMeta | None) -> None:
    """Writes the units, starts what does not run."""
    if plan.environment is None:
        return
    reasons = [installed] if installed else []
    files.write(
        files=[files.File(READY, render("vllm/wait_until_ready.py"), mode="755")],
        seen=probe.paths,
        name="Write the readiness check",
    )
    for service in host.loop([service for service in plan.services if service.engine == "vllm"]):
        check = _flags_check(plan.environment, service, runs=service.unit in probe.units)
        text = partial(unit_text, plan, plan.environment)
        beside.serve(beside.change(service, text, check), service, probe, because=reasons)


def _flags_check(environment: EnvironmentPlan, service: ServicePlan, runs: bool) -> str | None:
    """A command that fails when this vLLM does not have one of the flags, by its own help.

    Nothing gets a unit with flags of the operator's that are none, and what runs none that cannot start at
    all. Asking for the help takes seconds, so it is asked once for each installation.
    """
    asked = service.flags if runs else service.unproven
    if not asked:
        return None
    known = f"{environment.directory}/vllm-flags-{environment.digest}.txt"
    ask = f"{environment.prefix}/bin/vllm serve --help"
    user = f"setpriv --reuid {USER} --regid {USER} --init-groups"
    user += f" env -i HOME=/nonexistent PYTHONPYCACHEPREFIX={BYTECODE}"
    given = operator_flags.words({name.partition(".")[0]: service.flags[name] for name in asked})
    flags = " ".join(word for word in given if operator_flags.NAME.fullmatch(word))
    return (
        f"{{ if [ ! -s {known} ]; then {{ {user} {ask}=all || {user} {ask}; }} 2>/dev/null | "
        f"grep -o -e '--[a-z0-9][a-z0-9-]*' | sort -u >{known}.new; mv -f {known}.new {known}; fi; "
        # an answer without a word is none
        f"if [ -s {known} ]; then ( for flag in {flags}; do grep -qx -e $flag {known} || {{ "
        f'echo "this vLLM takes no $flag: correct serve.{service.name}.flags or extra_args" >&2; exit 1; }}; '
        "done ); fi; }"
    )


def unit_text(plan: HostPlan, environment: EnvironmentPlan, service: ServicePlan) -> str:
    """The unit file of one service."""
    return render(
        "vllm/vllm.service.j2",
        service=service,
        prefix=environment.prefix,
        user=plan.user,
        bytecode=BYTECODE,
        gpu=plan.accelerator == "cuda",
        backoff=plan.systemd >= units.BACKOFF_FROM_SYSTEMD,
        pins=environment.digest,
        flags=list(operator_flags.words(service.flags)),
    )
