"""Batches: a file of requests, answered by a vLLM of its own under systemd, resumed after every cut."""

import shlex
from pathlib import Path

from pyinfra.api.operation import OperationMeta
from pyinfra.context import host

from ops import batch as batches
from ops import files, units, upload
from ops.render import TEMPLATES, render
from plan import batch_lines, operator_flags
from plan.batch_settings import DIRECTORY
from plan.host import BYTECODE, USER, BatchPlan, EnvironmentPlan, HostPlan
from plan.probe import Probe
from roles.vllm import deploy

PROGRAMS = "/opt/bringup/bin/batch"
# An older systemd refuses to restart what is to run once.
RESTARTS_FROM_SYSTEMD = 244


def answer(plan: HostPlan, probe: Probe, installed: OperationMeta | None) -> None:
    """Writes the units of batches, starts what is not answered yet, and waits for it where that is wished."""
    environment = plan.environment
    if environment is None or not plan.batches:
        return
    written = files.write(files=programs(), seen=probe.paths, name="Write the batch program")
    for batch in host.loop(plan.batches):
        file = files.File(f"/etc/systemd/system/{batch.unit}", unit_text(plan, environment, batch))
        unit = probe.units.get(batch.unit)
        upload.send_file(
            source=batch.source,
            target=batch.input,
            needed=file.differs(probe.paths.get(file.path)) or not (unit and unit.serves),
            name="Send the requests from the operator's machine",
        )
        changed = files.write(
            files=[file],
            seen=probe.paths,
            check=_check(environment, batch, runs=batch.unit in probe.units),
            name="Write the batch unit",
        )
        batches.answered(
            service=units.Service(batch.unit, f"batch {batch.name}", 0, setting=f"serve.{batch.name}"),
            seen=probe.units,
            because=[changed, written, *([installed] if installed else [])],
            wait=batch.wait,
            name="Answer the batch",
        )


def programs() -> list[files.File]:
    """What runs on the host: the program, and the lines that it shares with the plan."""
    sources = {
        "run.py": (TEMPLATES / "vllm/batch/run.py").read_text(),
        "lines.py": Path(batch_lines.__file__).read_text(),
    }
    return [files.File(f"{PROGRAMS}/{name}", text, mode="755") for name, text in sources.items()]


def unit_text(plan: HostPlan, environment: EnvironmentPlan, batch: BatchPlan) -> str:
    """The unit file of one batch."""
    return render(
        "vllm/batch.service.j2",
        batch=batch,
        service=batch.service,
        prefix=environment.prefix,
        program=f"{PROGRAMS}/run.py",
        user=plan.user,
        bytecode=BYTECODE,
        gpu=plan.accelerator == "cuda",
        restarts=plan.systemd >= RESTARTS_FROM_SYSTEMD,
        pins=environment.digest,
        output_directory=_directory(batch),
        flags=list(operator_flags.words(batch.service.flags)),
    )


def _directory(batch: BatchPlan) -> str:
    return batch.output.rpartition("/")[0]


def _check(environment: EnvironmentPlan, batch: BatchPlan, runs: bool) -> str:
    """What has to hold before the unit takes its place: flags, the requests, a directory for the answers."""
    folder, given = shlex.quote(_directory(batch)), shlex.quote(batch.input)
    user = f"setpriv --reuid {USER} --regid {USER} --init-groups"
    made = f"install -d -o {USER} -g {USER} {folder}"
    setting = f"serve.{batch.name}.batch"
    parts = [
        deploy.check(environment, batch.service, runs),
        made if _directory(batch).startswith(DIRECTORY) else f"{{ [ -d {folder} ] || {made}; }}",
        f"{{ {user} test -w {folder} || {{ echo {USER} may not write to {folder}: "
        f"correct {setting}.output >&2; exit 1; }}; }}",
        f"{{ {user} test -r {given} || {{ echo {USER} cannot read {given}: "
        f"correct {setting}.input >&2; exit 1; }}; }}",
    ]
    return " && ".join(part for part in parts if part)
