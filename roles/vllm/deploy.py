"""vLLM services: one systemd unit each, active only when the model has answered."""

import shlex
from functools import partial

from pyinfra.api.operation import OperationMeta
from pyinfra.context import host

from ops import beside, files, task, units
from ops import environment as packages
from ops.render import render
from plan import chat_template, operator_flags
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
    """Writes the units, starts what does not run, and removes what no unit reads any more."""
    if plan.environment:
        _serve(plan, plan.environment, probe, installed)
    kept = {template.path for template in templates(plan)}
    files.absent(
        paths=[path for path in probe.paths if path.startswith(f"{chat_template.DIRECTORY}/")],
        seen=set(probe.paths) - kept,
        name="Remove chat templates that no service has",
    )


def templates(plan: HostPlan) -> list[files.File]:
    """The chat templates of the operator's."""
    found = [service.chat_template for service in plan.engines]
    return [files.File(one.path, one.text) for one in found if one and one.text is not None]


def _serve(
    plan: HostPlan, environment: EnvironmentPlan, probe: Probe, installed: OperationMeta | None
) -> None:
    reasons = [installed] if installed else []
    files.write(
        files=[files.File(READY, render("vllm/wait_until_ready.py"), mode="755")],
        seen=probe.paths,
        name="Write the readiness check",
    )
    files.write(files=templates(plan), seen=probe.paths, name="Write the chat templates")
    for service in host.loop([service for service in plan.services if service.engine == "vllm"]):
        needed = check(environment, service, runs=service.unit in probe.units)
        text = partial(unit_text, plan, environment)
        beside.serve(beside.change(service, text, needed), service, probe, because=reasons)


def check(environment: EnvironmentPlan, service: ServicePlan, runs: bool) -> str | None:
    """What has to hold before the unit takes its place."""
    checks = [_flags_check(environment, service, runs), _template_check(environment, service)]
    return " && ".join(check for check in checks if check) or None


def _template_check(environment: EnvironmentPlan, service: ServicePlan) -> str | None:
    """A command that fails when the model brings along no such template; the operator's own was read."""
    template = service.chat_template
    if template is None or template.text is not None:
        return None
    lines = (
        "import re, sys, jinja2",
        "text = open(sys.argv[1], encoding='utf-8').read()",
        f"text = re.sub(r'{chat_template.TRAINING_MARK}', '', text)",
        "jinja2.Environment(extensions=['jinja2.ext.loopcontrols']).from_string(text)",
    )
    program = shlex.join([f"{environment.prefix}/bin/python", "-IB", "-c", "; ".join(lines), template.path])
    sentence = (
        f"serve.{service.name}.chat_template: {template.path} is missing, empty, or no Jinja: correct it"
    )
    path = shlex.quote(template.path)
    return f"{{ {{ [ -s {path} ] && {program}; }} || {{ echo {shlex.quote(sentence)} >&2; exit 1; }}; }}"


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
