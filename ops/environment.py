"""Python packages in the planned environment, by uv: exact, resumable, never twice."""

import shlex
from collections.abc import Mapping

from packaging.version import InvalidVersion, Version

from ops.task import Task
from plan.host import CONDA_PREFIX, EnvironmentPlan
from plan.probe import Probe, canonical_name

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
        not _is(there.get(canonical_name(name.partition("[")[0])), version) for name, version in pins.items()
    )


def _is(installed: str | None, pinned: str) -> bool:
    """Whether these are one version, as PEP 440 has it: 1.0 is 1.0.0, and 2.9.0 is not 2.9.0+cpu."""
    try:
        return installed is not None and Version(installed) == Version(pinned)
    except InvalidVersion:
        return False


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


def index_options(environment: EnvironmentPlan) -> list[str]:
    """uv's options for the sources of the settings; none at all leaves uv its own default."""
    addresses = environment.addresses
    options = ["--default-index", addresses.wheels] if addresses.wheels else []
    for url in addresses.wheels_extra:
        options += ["--index", url]
    for url in addresses.wheels_links:
        options += ["--find-links", url]
    return options


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
            *index_options(environment),
            *("--output-file", f"{environment.lock_file}.new", environment.project_file),
        ]
    )
    script = f"{command}\nmv -f {environment.lock_file}.new {environment.lock_file}"
    return Task("resolve", "resolving the Python packages", script, variables(environment))


def install_task(environment: EnvironmentPlan, part: str, label: str) -> Task:
    """Installs one part of the project, held to the lock."""
    command = shlex.join(
        [
            f"{environment.prefix}/bin/uv",
            *("pip", "install", "--python", f"{environment.prefix}/bin/python", "--only-binary", ":all:"),
            *("--constraint", environment.lock_file, "--requirements", environment.project_file),
            *("--extra", part),
            *index_options(environment),
        ]
    )
    return Task(f"install-{part}", label, command, variables(environment))
