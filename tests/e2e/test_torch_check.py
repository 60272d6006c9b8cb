"""The torch check with the real torch on a lab host, as far as a host without a GPU goes."""

from __future__ import annotations

import json
import re
import textwrap

import pytest

from tests.e2e.deploys import HOSTS, deployed
from tests.lab import machines

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("fleet")]

HOST = HOSTS[0]
PYTHON = "/opt/bringup/conda/envs/serve/bin/python"
LOADED = """
    import importlib.machinery, importlib.util
    loader = importlib.machinery.SourceFileLoader("check", "/opt/bringup/bin/check-torch")
    check = importlib.util.module_from_spec(importlib.util.spec_from_loader("check", loader))
    loader.exec_module(check)
    import torch
"""


def run(script: str, shell: str = "") -> str:
    """What Python on the host says, with the check loaded as `check`; `shell` goes before it."""
    program = textwrap.dedent(LOADED) + textwrap.dedent(script)
    done = machines.run(
        HOST, f"{shell}\nPYTHONDONTWRITEBYTECODE=1 {PYTHON} - 2>&1", input=program, timeout_seconds=300
    )
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def environment(bare_hosts: None) -> None:
    deployed()


def test_the_figures_of_the_deploy_are_on_the_host() -> None:
    recorded = machines.run(HOST, "cat /etc/bringup/environments/serve/torch-*.json").stdout
    (device,) = json.loads(recorded)["devices"]
    assert device["device"] == "cpu" and device["tflops"] > 0 and device["error"] < 1e-4


def test_every_type_is_within_its_tolerance_and_one_wrong_element_in_a_million_is_not() -> None:
    said = run("""
        for kind in check.TOLERANCES:
            print(kind, check.prove_product(torch, "cpu", kind))
        right = torch.Tensor.__matmul__
        def wrong(left, other):
            result = right(left, other)
            if left.dtype == torch.float32:
                result[3, 5] += 5
            return result
        torch.Tensor.__matmul__ = wrong
        check.prove_product(torch, "cpu", "float32")
    """)
    errors = {kind: float(error) for kind, error in re.findall(r"^(\w+\d) (\S+)$", said, re.MULTILINE)}
    # half of the last place of each type, and not half of the tolerance
    assert errors["bfloat16"] < 4e-3 and errors["float16"] < 1e-3 and errors["float32"] < 1e-5
    assert "cpu: an element of a 1024x1024 product in float32 is off by" in said.splitlines()[-1]


def test_ranks_sum_rightly_listen_on_loopback_only_and_fail_in_one_sentence() -> None:
    watch = (
        "(for i in $(seq 100); do ss -Hltnp | grep python | while read -r _ _ _ address _; do "
        "echo $address; done; sleep 0.1; done | sort -u >/tmp/listened) & watcher=$!"
    )
    said = run(
        """
        print(check.all_reduce("gloo", 2, 32))
        check.all_reduce("nccl", 2, 1)
        """,
        watch,
    )
    assert "'ranks': 2" in said
    assert "nccl: an all-reduce over 2 ranks failed: " in said.splitlines()[-1]
    listened = machines.run(HOST, "sleep 1; cat /tmp/listened; rm -f /tmp/listened").stdout
    # the vLLM of the deploy listens there too
    assert {line.rpartition(":")[0] for line in listened.split()} <= {"127.0.0.1"}, listened
