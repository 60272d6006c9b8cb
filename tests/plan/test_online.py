"""Decisions resolved for real, with uv, against the package index and for the host's own platform.

Slow, and in need of the index: not part of `make test`. torch comes with its public version here: which of
its builds it is (the part behind the +) is the torch index's business, and does not change what vLLM accepts.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plan import compat
from plan.answer import Decision, Machine, Wish
from plan.gpus import lookup
from plan.resolve import decide

pytestmark = pytest.mark.online

UV = Path(sys.executable).with_name("uv")
UV_SECONDS = 300
# The C libraries that uv knows as platforms.
PLATFORMS = ("2.28", "2.31", "2.32", "2.33", "2.34", "2.35", "2.36", "2.37", "2.38", "2.39", "2.40")


@dataclass(frozen=True)
class Case:
    gpu: str
    os: str
    driver: str | None = None
    wish: tuple[tuple[str, Any], ...] = ()


CASES = (
    Case("L40S", "ubuntu22.04"),
    Case("L40S", "ubuntu22.04", "535.104.05"),
    Case("L40S", "ubuntu22.04", "535.104.05", (("policy", "native"),)),
    Case("L40S", "ubuntu22.04", "550.127.05", (("policy", "native"),)),
    Case("L40S", "ubuntu24.04", "570.124.06", (("policy", "native"),)),
    Case("T4", "ubuntu20.04", "535.104.05"),
    Case("T4", "debian12", "580.95.05", (("python", "3.11"),)),
    Case("V100 32GB", "ubuntu22.04"),
    Case("V100 32GB", "rhel8", "550.127.05"),
    Case("A100 80GB", "rhel8"),
    Case("A100 80GB", "rhel9"),
    Case("A100 80GB", "kylin10", "535.104.05", (("model", "Qwen/Qwen3-8B"),)),
    Case("A10", "debian11", "525.60.13", (("python", "3.10"),)),
    Case("H100", "ubuntu22.04", "535.161.07"),
    Case("H100", "ubuntu24.04", "580.95.05", (("python", "3.13"),)),
    Case("H200", "openeuler24.03", "570.124.06"),
    Case("B200", "ubuntu24.04", "575.57.08"),
    Case("RTX 5090", "debian13", "570.124.06"),
    Case("RTX 4090", "ubuntu22.04", "550.127.05", (("vllm", "0.8.5"), ("python", "3.12"))),
    Case("L4", "opencloudos9", "560.35.05", (("vllm", "0.10.2"),)),
    Case("RTX 3090", "anolis8", "545.23.08", (("vllm", "0.7.3"),)),
)


def platform(glibc: str) -> str:
    """uv's name for the newest platform that a C library is good for."""
    fitting = [one for one in PLATFORMS if compat.version(one) <= compat.version(glibc)]
    return f"x86_64-manylinux_{fitting[-1].replace('.', '_')}"


def resolved(
    requirements: list[str],
    python: str,
    glibc: str,
    before: str | None = None,
    constraints: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """What uv makes of the requirements; nothing of this machine's own configuration has a say."""
    index = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    command = [str(UV), "pip", "compile", "--no-config", "--quiet", "--no-header", "--no-annotate"]
    command += ["--only-binary", ":all:", "--python-version", python, "--python-platform", platform(glibc)]
    command += ["--exclude-newer", before] if before else []
    command += ["--constraint", str(constraints)] if constraints else []
    command += [*(["--default-index", index] if index else []), "-"]
    text = "\n".join(requirements)
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=UV_SECONDS, check=False
    )


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.gpu}-{case.os}-{case.driver}-{dict(case.wish)}"
)
def test_a_decision_can_be_installed_with_vllms_torch_unchanged(case: Case, tmp_path: Path) -> None:
    """As a host resolves it: today's index, held by the closure of the release's own time."""
    machine = Machine(gpus=(lookup(case.gpu),), driver=case.driver, os=case.os)
    answer = decide(machine, Wish(manage_driver=case.driver is None, **dict(case.wish)))
    assert isinstance(answer, Decision), answer
    system = compat.system(case.os)
    assert system and answer.vllm_index is None and answer.python and answer.resolved_before
    torch = str(answer.torch).split("+")[0]
    own = ("transformers", "accelerate", "modelscope")
    pins = [f"vllm=={answer.vllm}", f"torch=={torch}", *(f"{name}=={answer.pins[name]}" for name in own)]
    constraints = tmp_path / "constraints.txt"
    held = {name: version for name, version in answer.pins.items() if name not in own}
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in held.items()))
    done = resolved(pins, answer.python, system.glibc, constraints=constraints)
    assert done.returncode == 0, done.stderr
    alone = resolved([f"vllm=={answer.vllm}"], answer.python, system.glibc, before=answer.resolved_before)
    assert f"torch=={torch}" in alone.stdout.split(), "vLLM's own pin is another torch"


@pytest.mark.parametrize("release", [row.version for row in compat.vllms().values() if row.blocked])
def test_a_release_that_is_blocked_in_the_tables_still_is(release: str) -> None:
    """When this fails, the release can be had: give it its Pythons and pins in plan/compat-vllm.toml."""
    row = compat.vllms()[release]
    done = resolved([f"vllm=={release}"], row.python[-1], "2.36", before="2030-01-01")
    assert done.returncode != 0
