"""Miniforge from a pinned installer, and the named environment from an explicit lock."""

import shlex

from pyinfra.api.operation import OperationMeta
from pyinfra.context import host

from ops import download, files, lasting, task
from ops import environment as packages
from ops.render import render
from plan import project
from plan.host import CONDA_PREFIX, EnvironmentPlan, HostPlan, environment_directory
from plan.probe import COMPLETE, Probe

CACHE = f"{CONDA_PREFIX}/pkgs"
# What conda finds in its environment: nothing of the host's own settings.
CONDA = {"HOME": "/root", "CONDARC": "/dev/null", "CONDA_PKGS_DIRS": CACHE}


def install(plan: HostPlan, probe: Probe) -> None:
    """Installs conda, makes the environment exactly as locked, puts uv into it, resolves its packages."""
    for prefix in host.loop(plan.removed_environments):
        task.run(task=removal(prefix), name="Remove the environment")
    environment = plan.environment
    if environment is None:
        return
    directory = environment.directory
    written = files.write(
        files=[
            files.File(f"{directory}/conda.explicit.txt", environment.explicit_lock),
            files.File(f"{directory}/uv.txt", render("conda/uv.txt.j2", uv=environment.uv)),
            files.File(environment.constraints_file, project.constraints(environment)),
            files.File(environment.project_file, project.text(environment)),
        ],
        seen=probe.paths,
        name="Write what the environment shall hold",
    )
    task.run(
        task=_installer(environment), needed=CONDA_PREFIX not in probe.environments, name="Install conda"
    )
    task.run(
        task=_create(environment),
        needed=not packages.exact(environment, probe),
        name="Create the conda environment",
    )
    task.run(
        task=_uv(environment),
        needed=packages.lacks(environment, {"uv": environment.uv.version}, probe),
        name="Put uv into the environment",
    )
    if environment.locked:
        files.write(
            files=[files.File(environment.lock_file, environment.locked)],
            seen=probe.paths,
            name="Write the inventory's lock of the Python packages",
        )
    else:
        resolve(environment, probe, written)


def hold(plan: HostPlan, probe: Probe) -> None:
    """Makes the environment what the inventory's lock has, no package more. Does nothing without a lock."""
    environment = plan.environment
    if environment is None or not environment.locked:
        return
    task.run(
        task=packages.hold_task(environment, probe),
        needed=lambda: packages.leaves_lock(environment, probe),
        name="Hold the Python packages to the lock",
    )


def removal(prefix: str) -> task.Task:
    """Takes an environment away, with what was written down about it.

    By what it counts as there goes last: a removal that was cut is seen, and done again.
    """
    name = prefix.rpartition("/")[2]
    script = f"""{CONDA_PREFIX}/bin/conda env remove --yes --quiet --prefix {prefix} ||
    echo "conda does not know it any more: its directory goes"
rm -rf {prefix}/conda-meta
if [ -d {prefix} ]; then find {prefix} -mindepth 1 -maxdepth 1 ! -name {COMPLETE} -exec rm -rf {{}} +; fi
rm -rf {prefix} {environment_directory(name)}
"""
    return task.Task("environment", f"removing the environment {name}", script, CONDA)


def resolve(environment: EnvironmentPlan, probe: Probe, written: OperationMeta) -> None:
    """Locks the Python packages once; again only when the project file has changed."""
    task.run(
        task=packages.resolve_task(environment),
        needed=lambda: written.changed or environment.lock_file not in probe.paths,
        name="Lock the Python packages",
    )


def _installer(environment: EnvironmentPlan) -> task.Task:
    """Downloads beside the goal, checks, installs into a fresh prefix. A half-made prefix is made anew."""
    sha256 = environment.installer_sha256
    installer = f"/opt/bringup/downloads/conda-{sha256[:12]}.sh"
    hint = "no source has the conda installer: set sources.conda_installer and sources.conda_installer_sha256"
    script = f"""{download.script(environment.installer_urls, sha256, installer, hint)}
rm -rf {CONDA_PREFIX}
sh {installer} -b -p {CONDA_PREFIX}
sync -f {CONDA_PREFIX}
touch {CONDA_PREFIX}/{COMPLETE}
"""
    return task.Task("conda", "installing conda", script)


def _create(environment: EnvironmentPlan) -> task.Task:
    """Makes the environment anew: an explicit lock is replayed, never merged into what is there."""
    conda = f"{CONDA_PREFIX}/bin/conda"
    create = f"""
rm -rf {environment.prefix}
{conda} create --yes --quiet --prefix {environment.prefix} --file {environment.directory}/conda.explicit.txt
"""
    script = f"{lasting.script(create, environment.prefix, [CACHE])}touch {environment.prefix}/{COMPLETE}\n"
    return task.Task("environment", f"creating the environment {environment.name}", script, CONDA)


def _uv(environment: EnvironmentPlan) -> task.Task:
    """pip brings the one package that brings all others, by hash."""
    command = [f"{environment.prefix}/bin/python", "-m", "pip", "install", "--no-deps", "--no-cache-dir"]
    command += [
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--requirement",
        f"{environment.directory}/uv.txt",
    ]
    if environment.addresses.closed:
        command += ["--no-index"]
        command += [word for links in environment.addresses.wheels_links for word in ("--find-links", links)]
    elif environment.addresses.wheels:
        command += ["--index-url", environment.addresses.wheels]
    variables = {
        "HOME": "/root",
        "PIP_CERT": environment.certificates,
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    script = lasting.script(shlex.join(command), environment.prefix)
    return task.Task("uv", "installing uv", script, variables)
