"""Models, whole or not at all: downloads start early and are joined late; hosts share what they have."""

import json
import shlex
from functools import partial
from pathlib import Path

from pyinfra.context import host

from ops import environment as packages
from ops import exchange, files, task, units, upload
from ops import packages as distribution
from ops.remote import Remote
from ops.render import TEMPLATES, render
from plan import model_facts
from plan.host import USER, EnvironmentPlan, HostPlan, TagPlan
from plan.model_plan import ModelPlan
from plan.models_host import PINS_FILE, pins_text
from plan.places import place
from plan.probe import Probe, missing_packages
from plan.tokens import Tokens

PROGRAMS = "/opt/bringup/bin/models"
FIREWALL = f"{PROGRAMS}/firewall.sh"
TOKENS = "/etc/bringup/credentials/models.env"
# The unit itself is root's, as an exchange needs it; nothing from outside is read before this.
AS_USER = f'setpriv --reuid="$(id -u {USER})" --regid="$(id -g {USER})" --init-groups --'
# How long a download bears a place that does not answer, before it ends with a sentence.
PATIENCE_SECONDS = 180


def start(plan: HostPlan, probe: Probe, tokens: Tokens) -> None:
    """Installs the ModelScope client and starts every missing download; does not wait."""
    environment = plan.environment
    if plan.model_facts:
        files.write(
            files=[files.File(model_facts.FILE, plan.model_facts)],
            seen=probe.paths,
            name="Keep the facts of models that are in no table",
        )
    if environment is None or not plan.models:
        return
    task.run(
        task=packages.install_task(environment, "models", "installing the ModelScope client"),
        needed=lambda: packages.lacks(environment, environment.pins["models"], probe),
        name="Install the ModelScope client",
    )
    files.write(files=programs(), seen=probe.paths, name="Write the download program")
    _tokens(probe, tokens)
    task.run(
        task=exchange.install_task(plan.package_manager, distribution.options(plan)),
        needed=lambda: (
            any(_shared(plan, model, probe) for model in plan.models)
            and bool(missing_packages(exchange.PACKAGES, probe.packages))
        ),
        name="Install what hosts exchange models with",
    )
    for model in host.loop(plan.models):
        upload.send(
            model=model,
            needed=place(model.endpoint).kind == "operator" and _lacking(plan, model, probe),
            # of a model that is there, a download asks for what it finds damaged
            pulls=partial(_pulls, plan, model, model.there(probe)),
            name="Send the model from the operator's machine",
        )
        task.start(
            task=_download(plan, environment, model, bool(tokens.environment_file)),
            needed=_lacking(plan, model, probe) or _under_way(model, probe),
            circumstances=partial(_circumstances, plan, model),
            name="Start the model download",
        )


def join(plan: HostPlan, probe: Probe, tokens: Tokens) -> None:
    """Waits for the downloads; each model is then whole, verified and in place."""
    if plan.environment is None:
        return
    for model in host.loop(plan.models):
        task.join(
            task=_download(plan, plan.environment, model, bool(tokens.environment_file)),
            needed=_lacking(plan, model, probe) or _under_way(model, probe),
            rescue=partial(_rescue, plan, model),
            name="Wait for the model download",
        )
    if plan.models:
        files.write(
            files=[files.File(PINS_FILE, pins_text(plan.models))],
            seen=probe.paths,
            name="Write down which commits the models are",
        )
    mendable = [service for service in plan.services if not isinstance(service.model, TagPlan)]
    for service in host.loop(mendable):
        units.restart_if_older(
            service=units.Service(
                service.unit, f"service {service.name}", service.start_timeout_seconds + 60
            ),
            than=f"{service.model.directory}/.bringup.json",
            needed=plan.downloads.verify == "full" and all(model.there(probe) for model in service.models),
            name="Restart what serves a mended model",
        )


def tidy(plan: HostPlan, probe: Probe) -> None:
    """Removes models that are no longer wanted, once nothing serves them any more."""
    directories = {*probe.models, *probe.model_parts}
    there = {*directories, *(path.rpartition("/")[0] for path in directories)}
    task.stop(
        names=_unwanted(plan, probe),
        seen=probe.units,
        name="Stop downloads of models that are no longer wanted",
    )
    files.absent(paths=plan.removed_models, seen=there, name="Remove models that are no longer wanted")


def _unwanted(plan: HostPlan, probe: Probe) -> list[str]:
    """The tasks of the downloads, cut or under way, that are to be removed."""
    gone = tuple(f"{path}/" for path in plan.removed_models)
    cut = [path for path in probe.model_parts if f"{path}/".startswith(gone)]
    return [f"model-{path.rpartition('/.')[2].removesuffix('.part')}" for path in cut]


def programs() -> list[files.File]:
    """What runs on the host to download, verify and share."""
    sources = sorted(path.name for path in Path(TEMPLATES / "models").iterdir() if path.is_file())
    return [files.File(f"{PROGRAMS}/{name}", render(f"models/{name}"), mode="755") for name in sources]


def _lacking(plan: HostPlan, model: ModelPlan, probe: Probe) -> bool:
    return not model.there(probe) or plan.downloads.verify == "full"


def _pulls(plan: HostPlan, model: ModelPlan, there: bool) -> bool:
    return not there and exchange.pulls(plan, model)


def _under_way(model: ModelPlan, probe: Probe) -> bool:
    """Whether a run that was cut left its download at work; with a whole model it still shares that."""
    unit = probe.units.get(task.unit(_name(model)))
    return unit is not None and unit.sub == "running"


def _name(model: ModelPlan) -> str:
    return f"model-{model.slug}"


def _shared(plan: HostPlan, model: ModelPlan, probe: Probe) -> bool:
    return not model.there(probe) and exchange.of(plan, model) is not None


def _circumstances(plan: HostPlan, model: ModelPlan) -> list[str]:
    """Who exchanges the model, and whether the operator's machine may be asked for files of it."""
    asked = ["--setenv=BRINGUP_OPERATOR=1"] if upload.can_help(plan, model) else []
    return [*exchange.options(plan, model, FIREWALL), *asked]


def _rescue(plan: HostPlan, model: ModelPlan, remote: Remote) -> list[str] | None:
    """Sends what only the operator's machine has; the download then goes on, and asks no more."""
    if upload.can_help(plan, model) and upload.help_out(plan, model, remote):
        return exchange.options(plan, model, FIREWALL)
    return None


def _tokens(probe: Probe, tokens: Tokens) -> None:
    """Tokens of private models, in a file that only root reads; systemd hands them to the download."""
    if not tokens.environment_file:
        files.absent(paths=[TOKENS], seen=probe.paths, name="Remove the models' tokens")
        return
    files.directories(
        wanted=[files.Directory(TOKENS.rpartition("/")[0], mode="700")],
        seen=probe.paths,
        name="Make the credentials directory",
    )
    files.write(
        files=[files.File(TOKENS, tokens.environment_file, mode="600")],
        seen=probe.paths,
        name="Write the models' tokens",
    )


def _download(plan: HostPlan, environment: EnvironmentPlan, model: ModelPlan, tokens: bool) -> task.Task:
    wish = plan.downloads
    job = {
        "model": model.model,
        "revision": model.revision,
        "commit": model.commit,
        "directory": model.directory,
        "staging": model.staging,
        "places": list(wish.places),
        "pinned_by": model.endpoint,
        "include": list(model.include),
        "exclude": list(model.exclude),
        "locked": dict(model.locked),
        "max_rate_mbit": wish.max_rate_mbit,
        "patience_seconds": PATIENCE_SECONDS,
    }
    command = [f"{environment.prefix}/bin/python", "-B", f"{PROGRAMS}/fetch.py", json.dumps(job)]
    proxies = {name: wish.proxy for name in ("http_proxy", "https_proxy") if wish.proxy}
    return task.Task(
        name=_name(model),
        label=f"model {model.model}",
        script=f"{AS_USER} mkdir -p {shlex.quote(model.parent)}\nexec {AS_USER} {shlex.join(command)}",
        environment={
            "HOME": "/var/lib/bringup",
            "REQUESTS_CA_BUNDLE": environment.certificates,
            "SSL_CERT_FILE": environment.certificates,
            **proxies,
        },
        properties={
            "UMask": "0022",
            "ProtectSystem": "strict",
            # /run is for the guard of an exchange
            "ReadWritePaths": "/srv/models /var/lib/bringup /run",
            "PrivateTmp": "yes",
            "NoNewPrivileges": "yes",
            **({"EnvironmentFile": TOKENS} if tokens else {}),
        },
    )
