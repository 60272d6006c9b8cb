"""The command line: what it prints, and with which exit code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plan.__main__ import main

CAPTURE = Path(__file__).with_name("captures") / "tesla-t4-v11.xml"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one call."""
    try:
        code = main(list(arguments))
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = run(capsys, *arguments, "--json")
    found: dict[str, Any] = json.loads(out)
    return code, found


def test_a_plan_prints_every_pin_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys,
        *("explain", "--gpu", "L40S", "--gpu-count", "2", "--driver", "535.104.05", "--os", "ubuntu22.04"),
        *("--python", "3.11", "--model", "Qwen/Qwen2.5-7B-Instruct", "--vllm", "0.8.5"),
    )
    assert code == 0
    for part in ("2 x L40S", "535.104.05", "0.8.5", "2.6.0", "cu124", "3.11", "4.51.3", "context 32768"):
        assert part in out
    assert "--tensor-parallel-size 1 --max-model-len 32768" in out


def test_the_json_of_a_decision_has_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = as_json(
        capsys,
        *("explain", "--gpu", "L40S", "--driver", "535.104.05", "--os", "ubuntu22.04", "--policy", "native"),
        *("--model", "Qwen/Qwen2.5-7B-Instruct"),
    )
    assert code == 0
    assert found["ok"] is True
    assert found["driver"]["action"] == "keep" and found["driver"]["version"] == "535.104.05"
    pins = ("cuda_tag", "torch", "vllm", "python", "transformers")
    assert [found[pin] for pin in pins] == ["cu121", "2.5.1+cu121", "0.7.3", "3.12", "4.49.0"]
    assert found["torch_index"] == "https://download.pytorch.org/whl/cu121"
    sizes = {"weights_gib", "kv_gib_per_gpu", "reserve_gib", "usable_gib", "tensor_parallel", "max_model_len"}
    assert sizes <= set(found["memory"])
    assert found["flags"]["max_model_len"] == found["memory"]["max_model_len"]
    assert found["warnings"] == ["Support of driver branch 535 ended in 2026-06."]
    assert all({"subject", "value", "because", "source"} == set(reason) for reason in found["why"])


def test_the_json_of_a_bare_host_names_branch_and_modules(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = as_json(capsys, "explain", "--gpu", "RTX 5090", "--os", "ubuntu24.04")
    driver = found["driver"]
    assert (driver["action"], driver["branch"], driver["modules"]) == ("install", 595, "open")


def test_the_json_of_a_refusal_has_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = as_json(capsys, "explain", "--gpu", "GTX 1080 Ti")
    assert code == 1
    assert found["ok"] is False
    assert all({"constraint", "fact", "source"} == set(failure) for failure in found["failed"])
    assert found["fixes"] == ["Serve with Ollama."]


def test_a_refusal_prints_what_fails_and_the_fixes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "explain", "--gpu", "L40S", "--driver", "535.104.05", "--vllm", "0.32.0")
    assert code == 1
    assert "fails: driver for vLLM 0.32.0" in out and "fix: Use vLLM 0.19.1." in out


def test_a_given_driver_is_kept_unless_it_may_be_managed(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("explain", "--gpu", "L40S", "--driver", "515.105.01", "--os", "debian12")
    assert run(capsys, *asked)[0] == 1
    code, found = as_json(capsys, *asked, "--manage-driver")
    assert (code, found["driver"]["action"]) == (0, "install")


def test_mixed_hosts_name_each_card(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = as_json(capsys, "explain", "--gpu", "V100 32GB", "--gpu", "10de:20b5", "--os", "rhel9")
    assert (found["driver"]["branch"], found["vllm"]) == (580, "0.8.5.post1")


def test_a_host_without_a_gpu_is_explained_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = as_json(capsys, "explain", "--os", "debian12", "--python", "3.11", "--memory", "16")
    assert (code, found["accelerator"], found["vllm"]) == (0, "cpu", "0.32.0+cpu")


def test_ollama_is_explained_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = as_json(
        capsys, "explain", "--gpu", "GTX 1080 Ti", "--engine", "ollama", "--model", "qwen2.5:7b"
    )
    assert (code, found["engine"], found["driver"]["branch"]) == (0, "ollama", 580)


@pytest.mark.parametrize("tag", ["me/model:1", "modelscope.cn/Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M"])
def test_every_tag_of_an_inventory_is_explained(tag: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--engine", "ollama", "--model", tag, "--gpu", "L40S", "--driver", "580.65.06")
    assert run(capsys, "explain", *arguments)[0] == 0


def test_a_grace_card_means_an_arm_host(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = as_json(capsys, "explain", "--gpu", "GH200", "--os", "ubuntu24.04")
    assert found["cuda_tag"] == "cu130"
    assert any("aarch64" in warning for warning in found["warnings"])


def test_fit_prints_where_the_memory_goes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "fit", "Qwen/Qwen2.5-72B-Instruct-AWQ", "--gpu", "H200")
    assert code == 0
    assert "weights" in out and "KV cache" in out and "context 32768" in out


def test_fit_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = as_json(
        capsys, "fit", "Qwen/Qwen3-8B", "--gpu", "H200", "--tensor-parallel", "1", "--max-model-len", "8192"
    )
    assert (code, found["ok"], found["memory"]["max_model_len"]) == (0, True, 8192)
    code, found = as_json(
        capsys, "fit", "Qwen/Qwen2.5-72B-Instruct", "--gpu", "H200", "--tensor-parallel", "2"
    )
    assert (code, found["memory"]["tensor_parallel"]) == (0, 2)
    code, found = as_json(capsys, "fit", "Qwen/Qwen2.5-72B-Instruct", "--gpu", "T4")
    assert (code, found["ok"]) == (1, False)
    assert found["failed"][0]["constraint"]
    assert "Choose Qwen/Qwen2.5-72B-Instruct-AWQ. Use 4 x T4." in found["fixes"]


def test_fixes_of_a_fit_are_builds_that_the_card_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = as_json(capsys, "fit", "Qwen/Qwen2.5-14B-Instruct", "--gpu", "V100-16GB")
    assert "Choose Qwen/Qwen2.5-14B-Instruct-GPTQ-Int4." in found["fixes"]
    assert not any("AWQ" in fix for fix in found["fixes"]), "AWQ kernels begin with Turing"


def test_parse_smi_prints_and_gives_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "parse-smi", str(CAPTURE))
    assert code == 0 and "Tesla T4" in out and "515.105.01" in out
    _, found = as_json(capsys, "parse-smi", str(CAPTURE))
    assert (found["driver_version"], found["cuda_version"]) == ("515.105.01", "11.7")
    fields = {"name", "uuid", "pci_device_id", "memory_mib", "compute_capability", "mig"}
    assert fields <= set(found["gpus"][0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "COMMAND"),
        (("explain", "--driver", "abc", "--gpu", "L40S"), "'abc' is no driver version"),
        (("explain", "--driver", "535.x", "--gpu", "L40S"), "is no driver version"),
        (("explain", "--driver", "999", "--gpu", "L40S"), "is no driver branch"),
        (("explain", "--driver", "535.104.05"), "there is no --gpu"),
        (("explain", "--gpu", "L40X"), "'L40X' is not in the catalogue"),
        (("explain", "--gpu", "$(reboot)"), "is not in the catalogue"),
        (("explain", "--gpu", "L40S", "--gpu-count", "-1"), "is no whole number from 1 to 64"),
        (("explain", "--gpu", "L40S", "--gpu-count", "0"), "is no whole number"),
        (("explain", "--gpu", "L40S", "--gpu-count", "1e9"), "is no whole number"),
        (("explain", "--gpu", "L40S", "--gpu", "T4", "--gpu-count", "2"), "needs exactly one --gpu"),
        (("explain", "--gpu-count", "2"), "needs exactly one --gpu"),
        (("explain", "--gpu", "L40S", "--model", "Qwen/x; reboot"), "is no model"),
        (("explain", "--gpu", "L40S", "--model", "Qwen/$(id)"), "is no model"),
        (("explain", "--gpu", "L40S", "--model", "/no/such/directory"), "is no directory"),
        (("explain", "--gpu", "L40S", "--os", "plan9"), "'plan9' is not in the tables"),
        (("explain", "--gpu", "L40S", "--glibc", "two"), "is no glibc version"),
        (("explain", "--gpu", "L40S", "--python", "2.7"), "is no Python version"),
        (("explain", "--gpu", "L40S", "--vllm", "latest"), "is no version"),
        (("explain", "--gpu", "L40S", "--torch", ">=2"), "is no version"),
        (("explain", "--gpu", "L40S", "--policy", "brave"), "invalid choice: 'brave'"),
        (("explain", "--gpu", "L40S", "--manage-driver"), "there is no --driver to replace"),
        (("explain", "--gpu", "L40S", "--gpu-memory-utilization", "1.5"), "is no share"),
        (("explain", "--gpu", "L40S", "--max-model-len", "-5"), "is no whole number"),
        (("explain", "--gpu", "L40S", "--memory", "much"), "is no size"),
        (("fit", "Qwen/Qwen3-8B"), "--gpu: is missing"),
        (("fit", "Qwen/Qwen3-8B", "--gpu", "H200", "--tensor-parallel", "-2"), "is no whole number"),
        (("fit", "a b", "--gpu", "H200"), "is no model"),
        (("fit", "someone/else", "--gpu", "H200", "--hub", "http://127.0.0.1:9"), "cannot be reached"),
        (("fit", "someone/else", "--gpu", "H200", "--hub", "ftp://x"), "is no address"),
        (("parse-smi", "/no/such/file"), "No such file"),
        (("parse-smi", "/dev/null"), "no output of nvidia-smi"),
        (("forget",), "invalid choice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_gets_one_sentence_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1 and "Traceback" not in err


def test_it_runs_as_a_module_and_ends_quietly_when_nobody_reads_on() -> None:
    command = f"{sys.executable} -m plan explain --gpu L40S --json | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("{\n", "", 0)
