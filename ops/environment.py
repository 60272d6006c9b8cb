"""Python packages in the planned environment, by uv: exact, resumable, never twice."""

import shlex
from collections.abc import Mapping

from ops import lasting
from ops.task import Task
from plan.host import CONDA_PREFIX, EnvironmentPlan
from plan.probe import Probe, canonical_name, same_version

CACHE = "/var/cache/bringup/uv"


def exact(environment: EnvironmentPlan, probe: Probe) -> bool:
    """Whether the environment has the locked conda packages and no others; if not, it is made anew.

    It lies inside conda's own prefix, so it goes whenever that is installed anew.
    """
    there = probe.environments.get(environment.prefix)
    return CONDA_PREFIX in probe.environments and there is not None and there.conda == environment.records


def lacks(environment: EnvironmentPlan, pins: Mapping[str, str], probe: Probe) -> bool:
    """Whether one of these pins (distribution -> exact version) is not installed exactly so.

    An environment that is made anew lacks everything, whatever the probe saw in the old one.
    """
    if not exact(environment, probe):
        return True
    there = probe.environments[environment.prefix].distributions
    return any(
        not same_version(there.get(canonical_name(name.partition("[")[0])), version)
        for name, version in pins.items()
    )


def variables(environment: EnvironmentPlan) -> dict[str, str]:
    """uv's own settings: nothing from the host's files, certificates from the host's store."""
    return {
        "UV_CACHE_DIR": CACHE,
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_SYSTEM_CERTS": "1",
        "SSL_CERT_FILE": environment.certificates,
        "UV_HTTP_TIMEOUT": "120",
        "UV_CONCURRENT_DOWNLOADS": "8",
        "HOME": "/root",
    }


def resolve_task(environment: EnvironmentPlan) -> Task:
    """Resolves all parts together, once, to exact versions with hashes: the environment's lock."""
    command = shlex.join(
        [
            f"{environment.prefix}/bin/uv",
            *(
                "pip",
                "compile",
                "--quiet",
                "--all-extras",
                "--generate-hashes",
                "--no-header",
                "--no-annotate",
            ),
            *("--python", f"{environment.prefix}/bin/python", "--only-binary", ":all:"),
            *("--constraint", environment.constraints_file),
            *environment.addresses.index_options,
            *("--output-file", f"{environment.lock_file}.new", environment.project_file),
        ]
    )
    new = f"{environment.lock_file}.new"
    script = f"{command}\nsync {new}\nmv -f {new} {environment.lock_file}"
    return Task("resolve", "resolving the Python packages", script, variables(environment))


def install_task(environment: EnvironmentPlan, part: str, label: str) -> Task:
    """Installs one part of the project, held to the lock."""
    script = lasting.script(_install(environment, part), environment.prefix, [CACHE])
    return Task(f"install-{part}", label, script, variables(environment))


def _install(environment: EnvironmentPlan, part: str) -> str:
    """The command for one part of the project; for all of them when `part` is empty."""
    return shlex.join(
        [
            f"{environment.prefix}/bin/uv",
            *("pip", "install", "--python", f"{environment.prefix}/bin/python", "--only-binary", ":all:"),
            *("--constraint", environment.lock_file, "--requirements", environment.project_file),
            *(("--require-hashes",) if environment.locked else ()),
            *(("--extra", part) if part else ("--all-extras",)),
            *environment.addresses.index_options,
        ]
    )


def hold_task(environment: EnvironmentPlan, probe: Probe) -> Task:
    """Installs what the inventory's lock has, each with its hash, and removes what it has not."""
    script = _install(environment, "")
    extra = sorted(_beside_lock(environment, probe))
    if extra:
        remove = [f"{environment.prefix}/bin/uv", "pip", "uninstall"]
        script += "\n" + shlex.join([*remove, "--python", f"{environment.prefix}/bin/python", *extra])
    script = lasting.script(script, environment.prefix, [CACHE])
    return Task("lock", "holding the Python packages to the lock", script, variables(environment))


def leaves_lock(environment: EnvironmentPlan, probe: Probe) -> bool:
    """Whether a Python package is missing, is of another version than locked, or is not in the lock."""
    locked = _locked_versions(environment)
    return lacks(environment, locked, probe) or bool(_beside_lock(environment, probe))


def _locked_versions(environment: EnvironmentPlan) -> dict[str, str]:
    requirements = (line.partition(" ")[0] for line in environment.locked.splitlines())
    return dict(requirement.split("==") for requirement in requirements)


def _beside_lock(environment: EnvironmentPlan, probe: Probe) -> set[str]:
    """What is installed and neither locked nor conda's own; nothing of an environment that is made anew."""
    if not exact(environment, probe):
        return set()
    kept = {canonical_name(name) for name in (*_locked_versions(environment), "uv")}
    kept |= {canonical_name(record.rsplit("-", 2)[0]) for record in environment.records}
    return set(probe.environments[environment.prefix].distributions) - kept
