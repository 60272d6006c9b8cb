"""Ollama services: one server each behind loopback, active only when its model has answered."""

import shlex
from collections.abc import Collection, Iterable, Iterator
from functools import partial

from pyinfra.context import host

from ops import beside, download, files, task, units
from ops.render import render
from plan import ollama_registry
from plan.archives import OLLAMA_ROOT, Archive
from plan.bundle_plan import BundlePlan
from plan.host import OLLAMA_STORES, USER, CreatedPlan, HostPlan, OllamaPlan, ServicePlan, TagPlan
from plan.ollama_host import STORE_PARTS
from plan.probe import Probe
from plan.probe_ollama import whole_name

MODELS = "/opt/bringup/bin/ollama-models"
READY = "/opt/bringup/bin/wait-until-ollama-answers"
FINISH = "/opt/bringup/bin/let-ollama-finish"
# All of 127.0.0.0/8 is loopback: here no service's port is taken.
PULL_ADDRESS = "127.254.254.254:11434"


def serve(plan: HostPlan, probe: Probe) -> None:
    """Installs the planned version, pulls the models, serves them; removes what nothing uses any more."""
    if plan.ollama is None:
        return
    if plan.ollama.archive:
        _install(plan.ollama, plan.ollama.archive, probe)
        task.run(
            task=_move(probe.ollama.store, plan.ollama.store),
            needed=probe.ollama.store != plan.ollama.store,
            name="Move the models",
        )
        _models(plan.ollama, plan.ollama.archive, probe, plan.bundle)
        _services(plan, probe)
        task.run(
            task=_unused(plan.ollama, plan.ollama.archive, probe),
            needed=bool(plan.ollama.removed_tags or plan.ollama.unused_blobs),
            name="Remove Ollama's models that no setting names",
        )
    removed = [*_programs(plan.ollama.removed_paths, probe), *plan.ollama.removed_paths]
    files.absent(
        paths=removed,
        seen=removed,
        name="Remove what nothing of Ollama uses any more",
    )


def _install(ollama: OllamaPlan, archive: Archive, probe: Probe) -> None:
    files.directories(
        wanted=[
            files.Directory(OLLAMA_ROOT),
            files.Directory(ollama.store, owner=f"{USER}:{USER}"),
        ],
        seen=probe.paths,
        name="Make Ollama's directories",
    )
    files.write(
        files=programs(),
        seen=probe.paths,
        name="Write Ollama's programs",
    )
    task.run(
        task=_unpack(archive, _proxy(ollama)),
        needed=archive.version not in probe.ollama.versions,
        name="Install Ollama",
    )


def programs() -> list[files.File]:
    """What the tasks and the units run beside Ollama itself."""
    templates = {MODELS: "ollama_models.sh", READY: "wait_until_ready.sh", FINISH: "let_ollama_finish.sh"}
    return [
        files.File(path, render(f"ollama/{template}"), mode="755") for path, template in templates.items()
    ]


def _unpack(archive: Archive, proxy: dict[str, str]) -> task.Task:
    """Downloads and unpacks beside the goal; the rename is the last step, so what is there is whole."""
    file = f"/opt/bringup/downloads/ollama-{archive.sha256[:12]}"
    hint = "no source has Ollama's archive: set sources.ollama"
    script = f"""{download.script(archive.urls, archive.sha256, file, hint)}
rm -rf {archive.directory}.part
mkdir {archive.directory}.part
tar --extract --file {file} --directory {archive.directory}.part --no-same-owner \\
    --use-compress-program {archive.packer}
chmod -R go-w {archive.directory}.part
sync -f {archive.directory}.part
rm -rf {archive.directory}
mv -T {archive.directory}.part {archive.directory}
rm -f {file}
"""
    return task.Task("ollama", f"installing Ollama {archive.version}", script, proxy)


def _proxy(ollama: OllamaPlan) -> dict[str, str]:
    """The one variable that Ollama reads: HTTP_PROXY would bend its own requests to its server."""
    return {"HTTPS_PROXY": ollama.https_proxy} if ollama.https_proxy else {}


def _move(old: str, new: str) -> task.Task:
    """Moves the models to another directory; what serves from the old one goes on until it is restarted.

    On the same file system they are linked, not copied. What the new one had stays. From the last step on the
    new one counts; until then all is done anew.
    """
    script = f"""old={old} new={new}
for part in {" ".join(STORE_PARTS)}; do
    copy=$new/.bringup-$part
    rm -rf "$copy"
    if [ -d "$old/$part" ]; then
        echo "moving $part"
        cp -al "$old/$part" "$copy" 2>/dev/null || {{ rm -rf "$copy"; cp -a "$old/$part" "$copy"; }}
        mkdir -p "$new/$part"
        cp -alf "$copy/." "$new/$part/"
        rm -rf "$copy"
    fi
    if [ -d "$new/$part" ]; then chown -R {USER}:{USER} "$new/$part"; fi
done
sync -f "$new"
printf '%s\\n' "$new" "$old" >{OLLAMA_STORES}.new
mv -f {OLLAMA_STORES}.new {OLLAMA_STORES}
"""
    return task.Task("ollama-store", f"moving Ollama's models to {new}", script)


def _models(ollama: OllamaPlan, archive: Archive, probe: Probe, bundle: BundlePlan | None) -> None:
    made = [tag for tag in ollama.tags if isinstance(tag, CreatedPlan)]
    files.write(
        files=[files.File(model.file, model.modelfile, mode="640", owner=f"root:{USER}") for model in made],
        seen=probe.paths,
        name="Write the Modelfiles",
    )
    missing = [tag for tag in ollama.tags if not tag.there(probe)]
    task.run(
        task=_pull(ollama, archive, missing, bundle, probe),
        needed=bool(missing or ollama.damaged_blobs),
        name="Pull the models",
    )


def _pull(
    ollama: OllamaPlan, archive: Archive, missing: list[TagPlan], bundle: BundlePlan | None, probe: Probe
) -> task.Task:
    words: list[str] = []
    for tag in missing:
        if isinstance(tag, CreatedPlan):
            # it may have been written otherwise then
            words += [*_forget(tag.model, probe), "create", tag.model, tag.file, tag.digest]
        elif bundle and tag.manifest:
            where = f"{bundle.url}/ollama-models"
            words += ["take", tag.model, ollama_registry.path(tag.model), tag.manifest, where]
            words += _forget(tag.model, probe)
        else:
            held = ollama_registry.digest(tag.layers) if tag.layers else "any"
            words += ["pull", tag.model, ollama_registry.path(tag.model), held]
            words += _forget(tag.model, probe)
    label = f"models {', '.join(tag.model for tag in missing)}" if missing else "Ollama's store"
    return _work(ollama, archive, label, ollama.damaged_blobs, words)


def _forget(name: str, probe: Probe) -> list[str]:
    """The words after which a model counts as made from a Modelfile no longer."""
    written = probe.ollama.written.get(whole_name(name))
    return ["forget", written] if written else []


def _unused(ollama: OllamaPlan, archive: Archive, probe: Probe) -> task.Task:
    """What no setting names goes when the services have answered: until then one may be serving it."""
    words = [word for tag in ollama.removed_tags for word in ("remove", tag, *_forget(tag, probe))]
    return _work(ollama, archive, "models that no setting names", ollama.unused_blobs, words)


def _work(
    ollama: OllamaPlan, archive: Archive, label: str, blobs: Iterable[str], words: Iterable[str]
) -> task.Task:
    """One server for all work on the store, on an address of its own; the services may only read the store.

    So a service starts without its hub, and who reaches its open port cannot delete or add a model.
    """
    script = shlex.join(["rm", "-f", "--", *(f"{ollama.store}/blobs/{blob}" for blob in blobs)])
    script += f"\nexec {shlex.join(['sh', MODELS, f'{archive.directory}/bin/ollama', *words])}"
    return task.Task(
        name="ollama-models",  # one name: two at a time would want the same address
        label=label,
        script=script,
        environment={
            "HOME": "/var/lib/bringup",
            "OLLAMA_HOST": PULL_ADDRESS,
            "OLLAMA_MODELS": ollama.store,
            "OLLAMA_NOPRUNE": "1",
            **_proxy(ollama),
        },
        properties={
            "User": USER,
            "ProtectSystem": "strict",
            "ReadWritePaths": f"{ollama.store} /var/lib/bringup",
            "PrivateTmp": "yes",
            "NoNewPrivileges": "yes",
        },
    )


def _programs(removed: Collection[str], probe: Probe) -> Iterator[str]:
    """By which a version counts as there: they go first, so that one whose removal is cut is not believed."""
    for version in sorted(probe.ollama.versions):
        directory = f"{OLLAMA_ROOT}/{version}"
        if directory in removed or OLLAMA_ROOT in removed:
            yield f"{directory}/bin"


def _services(plan: HostPlan, probe: Probe) -> None:
    for service in host.loop([service for service in plan.services if service.engine == "ollama"]):
        beside.serve(beside.change(service, partial(unit_text, plan)), service, probe)


def unit_text(plan: HostPlan, service: ServicePlan) -> str:
    """The unit file of one service."""
    assert plan.ollama and plan.ollama.archive
    return render(
        "ollama/ollama.service.j2",
        service=service,
        prefix=plan.ollama.archive.directory,
        user=USER,
        gpu=plan.accelerator == "cuda",
        backoff=plan.systemd >= units.BACKOFF_FROM_SYSTEMD,
        ready=READY,
        finish=FINISH,
    )
