"""Models from ModelScope, whole or not at all: started early, joined late."""

import shlex

from pyinfra.context import host

from ops import environment as packages
from ops import files, task
from ops.render import render
from plan import model_facts
from plan.host import USER, EnvironmentPlan, HostPlan, ModelPlan
from plan.probe import Probe

FETCH = "/opt/bringup/bin/fetch-model"


def start(plan: HostPlan, probe: Probe) -> None:
    """Installs the ModelScope client and starts every missing download; does not wait."""
    environment = plan.environment
    if environment is None or not plan.models:
        return
    task.run(
        task=packages.install_task(environment, "models", "installing the ModelScope client"),
        needed=lambda: packages.lacks(environment, environment.pins["models"], probe),
        name="Install the ModelScope client",
    )
    files.write(
        files=[files.File(FETCH, render("models/fetch_model.py"), mode="755")],
        seen=probe.paths,
        name="Write the download program",
    )
    files.write(
        files=[files.File(model_facts.FILE, plan.model_facts)] if plan.model_facts else [],
        seen=probe.paths,
        name="Keep the facts of models that are in no table",
    )
    for model in host.loop(plan.models):
        task.start(
            task=_download(environment, model),
            needed=not model.there(probe),
            name="Start the model download",
        )


def join(plan: HostPlan, probe: Probe) -> None:
    """Waits for the downloads; each model is then whole, verified and in place. Removes unwanted ones."""
    if plan.environment:
        for model in host.loop(plan.models):
            task.join(
                task=_download(plan.environment, model),
                needed=not model.there(probe),
                name="Wait for the model download",
            )
    files.absent(paths=plan.removed_models, seen=probe.models, name="Remove models that are no longer wanted")


def _download(environment: EnvironmentPlan, model: ModelPlan) -> task.Task:
    command = [f"{environment.prefix}/bin/python", FETCH]
    command += [model.model, model.revision, model.directory, model.endpoint]
    return task.Task(
        name=f"model-{model.slug}",
        label=f"model {model.model}",
        script=f"mkdir -p {shlex.quote(model.parent)}\nexec {shlex.join(command)}",
        environment={"HOME": "/var/lib/bringup", "REQUESTS_CA_BUNDLE": environment.certificates},
        properties={
            "User": USER,
            "ProtectSystem": "strict",
            "ReadWritePaths": "/srv/models /var/lib/bringup",
            "PrivateTmp": "yes",
            "NoNewPrivileges": "yes",
        },
    )
