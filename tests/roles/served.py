"""The probe's text of a host on which a deploy has done its work.

What the deploy wrote is taken from what it sent; what its tasks leave behind (packages, environments,
models, running units) is made from the plan.
"""

import hashlib
import json
import re
from typing import Any

from plan import gateway, stamp
from plan.host import CONDA_PREFIX, EnvironmentPlan, HostPlan
from plan.model_plan import ModelPlan
from plan.probe import parse
from plan.probe_models import MANIFEST
from tests.probes import with_block
from tests.roles.fleet import Exec

MADE = re.compile(r"install -d -m (\S+) -o (\S+) -g (\S+) -- (\S+)")
PUT = re.compile(r"install -D -m (\S+) -o (\S+) -g (\S+) -- \d+ (\S+)\.new ")
MODEL_BYTES, MODEL_TIME = 988097824, "1700000000.5000000000"


def served(bare: str, execs: list[Exec], plan: HostPlan) -> str:
    """The text for the host whose bare probe and whole first run these are."""
    assert plan.environment is not None
    paths, hashes = written(execs)
    locked = f" {plan.environment.lock_file}" in "".join(paths)
    made = [plan.environment.checked_file, *([] if locked else [plan.environment.lock_file])]
    for result in made:
        paths.append(f"644 root:root f {result}")
        hashes.append(f"{'0' * 64}  {result}")
    blocks = {
        "packages": [f"{name} ii  1.0-1" for name in (*plan.base_packages, *_front_packages(plan))],
        "user": ["bringup:x:998:998::/var/lib/bringup:/usr/sbin/nologin"],
        "paths": paths,
        "hashes": hashes,
        "units": _units(plan),
        "environments": _environments(plan.environment),
        "models": [line for model in plan.models for line in _model(model)],
        "listening": [
            f'LISTEN 0 2048 {address}:{port} 0.0.0.0:* users:(("{program}",pid=9,fd=3))'
            for service in plan.services
            for address, port, program in (
                (service.inner_address, service.inner_port, "vllm"),
                (service.address, service.port, "nginx" if service.fronted else "vllm"),
            )
        ],
        "gateway": _gateway(plan),
        "checks": [f"{plan.environment.checked_file} {figures(plan, driver(bare))}"],
    }
    text = bare
    for name, lines in blocks.items():
        text = with_block(text, name, *lines)
    return stamped(text, execs, plan)


def stamped(text: str, execs: list[Exec], plan: HostPlan) -> str:
    """The text for a host that is otherwise as here, and has what the end of the deploy wrote down."""
    kept = [text for trip in execs for path, text in trip.files().items() if path == stamp.FILE]
    found = stamp.parse("".join(kept))
    text = with_block(text, "stamp", *([found.time] if found else []))
    return with_block(text, "state", *stamp.state(parse(text), plan.base_packages).splitlines())


def written(execs: list[Exec]) -> tuple[list[str], list[str]]:
    paths, hashes = [], []
    for trip in execs:
        for mode, user, group, path in MADE.findall(trip.command):
            paths.append(f"{mode} {user}:{group} d {path}")
        for mode, user, group, path in PUT.findall(trip.command):
            paths.append(f"{mode} {user}:{group} f {path}")
        for path, text in trip.files().items():
            hashes.append(f"{hashlib.sha256(text.encode()).hexdigest()}  {path}")
    return paths, hashes


def driver(text: str) -> str | None:
    """The driver whose module is loaded on the host."""
    return parse(text).driver


def figures(plan: HostPlan, driver: str | None, **changed: Any) -> str:
    """What the torch check leaves behind on this host."""
    devices = [
        {"device": f"cuda:{index}", "name": "NVIDIA H100 80GB HBM3", "dtype": "bfloat16", "tflops": 700.0}
        for index, _ in enumerate(plan.gpu_floors)
    ]
    cpu = {"device": "cpu", "name": "CPU", "dtype": "float32", "tflops": 0.1}
    return json.dumps({"driver": driver, "devices": devices or [cpu], "warnings": []} | changed)


def _front_packages(plan: HostPlan) -> tuple[str, ...]:
    return plan.gateway.packages if plan.gateway else ()


def _gateway(plan: HostPlan) -> list[str]:
    """A front with a certificate of its own, made out to the planned names."""
    if plan.gateway is None:
        return []
    pem = ["-----BEGIN CERTIFICATE-----", "MIIB", "-----END CERTIFICATE-----"]
    names = [f"name {name}" for name in plan.gateway.names]
    return ["user", "nginx", "secure_link", *(f"certificate {line}" for line in pem), *names]


def _units(plan: HostPlan) -> list[str]:
    lines = []
    front = [gateway.UNIT] if plan.gateway else []
    for unit in [*(service.unit for service in plan.engines), *front]:
        lines += ["Restart=always", "NRestarts=0", "Result=success", "MainPID=9", f"Id={unit}"]
        lines += [
            "ActiveState=active",
            "SubState=running",
            "UnitFileState=enabled",
            "NeedDaemonReload=no",
            "",
        ]
    return lines


def _environments(environment: EnvironmentPlan) -> list[str]:
    lines = [f"prefix {CONDA_PREFIX}", "conda conda-24.1.json", f"prefix {environment.prefix}"]
    lines += [f"conda {record}.json" for record in sorted(environment.records)]
    pins = {"uv": environment.uv.version}
    for part in environment.pins.values():
        pins |= part
    pins |= dict(line.split()[0].split("==") for line in environment.locked.splitlines())
    return [
        *lines,
        *(f"dist {name.replace('-', '_')}-{version}.dist-info" for name, version in pins.items()),
    ]


def _model(model: ModelPlan) -> list[str]:
    entry = {"size": MODEL_BYTES, "sha256": "0" * 64, "mtime_ns": 1700000000500000000}
    manifest = {
        "model": model.model,
        "revision": model.revision,
        "commit": model.commit,
        "include": list(model.include),
        "exclude": list(model.exclude),
        "files": {"model.safetensors": entry},
    }
    return [
        f"directory {model.directory}",
        f"manifest {json.dumps(manifest)}",
        f"file {MODEL_BYTES} {MODEL_TIME} model.safetensors",
        f"file 512 1700000001.0000000000 {MANIFEST}",
    ]
