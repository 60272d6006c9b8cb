"""Generates with a model without any server, as the tutorial does: vLLM's `LLM.generate`, and Transformers.

Runs on the host, in the deployed environment: python -c PROGRAM ENGINE DIRECTORY OPTIONS

ENGINE is "vllm" or "transformers"; OPTIONS a JSON object for `LLM`, of which Transformers heeds `dtype` and
`trust_remote_code`. The last line that it prints is a JSON object: `outcome` ("answered", "skipped" with a
`cause`, "failed" with a `cause`), `words`, `device`, `seconds` of generating, `tokens`, `needed_gib`,
which it was thought to take, and `memory_gib`, the most that the process took. It takes what is free beside
the services, or skips.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

GIB = 2**30
QUESTION = "你好，请介绍一下你自己。"
TOKENS = 32
# Beside the weights: libraries, activations, a small KV cache. Measured: 1.5 GiB on a CPU with a tiny model.
BESIDE_GIB = 2.5
# Left to everything else on the host.
SPARED_GIB = 2.0
# On a CPU, more than this takes minutes to read and to compute.
MOST_ON_CPU_GIB = 20.0


# Free and whole memory in GiB, and index.
Gpu = tuple[float, float, str]


class SkippedError(Exception):
    """There is no room, or this engine is not meant for this model; one sentence."""


def weights_gib(directory: Path) -> float:
    """What the weights take, as they lie on the disk."""
    kinds = ("*.safetensors", "*.bin")
    found = (sum(path.stat().st_size for path in directory.glob(kind)) for kind in kinds)
    return next((size for size in found if size), 0) / GIB


def free_host_gib(meminfo: str) -> float:
    """What the kernel would give to a new program."""
    (line,) = [line for line in meminfo.splitlines() if line.startswith("MemAvailable:")]
    return int(line.split()[1]) / 2**20


def free_gpus(listed: str) -> list[Gpu]:
    """The GPUs that nvidia-smi lists, those with most free memory first."""
    rows = [[part.strip() for part in line.split(",")] for line in listed.splitlines() if line.strip()]
    return sorted(((int(free) / 1024, int(whole) / 1024, index) for index, free, whole in rows), reverse=True)


def place(engine: str, weights: float, split: int, gpus: list[Gpu], host: float) -> list[Gpu]:
    """Where there is room: the GPUs to use, or an empty list for the CPU.

    Args:
        weights: GiB of the weights; `split`: over how many GPUs vLLM splits them.
        gpus: as `free_gpus` tells them; empty on a host without.
        host: GiB of free memory of the host.

    Raises:
        SkippedError: there is none.
    """
    parts = split if engine == "vllm" else 1
    needed = weights / parts * 1.05 + BESIDE_GIB
    taken = gpus[:parts]
    if len(taken) == parts and all(free >= needed for free, _, _ in taken):
        return taken
    if gpus and engine == "vllm":
        raise SkippedError(
            f"the GPUs are in use: {min(free for free, _, _ in taken):.1f} GiB free, {needed:.1f} needed"
        )
    if weights > MOST_ON_CPU_GIB:
        raise SkippedError(f"{weights:.0f} GiB of weights are too much for the CPU, and no GPU has room")
    if host < weights * 1.1 + BESIDE_GIB + SPARED_GIB:
        needed = weights * 1.1 + BESIDE_GIB + SPARED_GIB
        raise SkippedError(f"{host:.1f} GiB of memory are free beside the services, {needed:.1f} needed")
    return []


def main(engine: str, directory: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What came of it."""
    weights = weights_gib(directory)
    said: dict[str, Any] = {"needed_gib": round(weights + BESIDE_GIB, 2)}
    try:
        split = int(options.get("tensor_parallel_size", 1)) * int(options.get("pipeline_parallel_size", 1))
        gpus = place(engine, weights, split, _gpus(), free_host_gib(Path("/proc/meminfo").read_text()))
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(index for _, _, index in gpus)
        generate = {"vllm": _with_vllm, "transformers": _with_transformers}[engine]
        said |= {"device": f"{len(gpus)} GPUs" if len(gpus) > 1 else "a GPU" if gpus else "the CPU"}
        said |= generate(directory, options, gpus, weights)
    except SkippedError as error:
        return said | {"outcome": "skipped", "cause": str(error)}
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        return said | {"outcome": "failed", "cause": cause[:600]}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    said.setdefault("memory_gib", round(resident, 2))
    if not said["words"].strip():
        return said | {"outcome": "failed", "cause": "it answered with nothing: its weights may be damaged"}
    return said | {"outcome": "answered"}


def _gpus() -> list[Gpu]:
    query = ("--query-gpu=index,memory.free,memory.total", "--format=csv,noheader,nounits")
    try:
        done = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, timeout=60, check=True)
        return free_gpus(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        # no GPU, or a driver that does not work, which other checks are about
        return []


def _with_vllm(directory: Path, options: dict[str, Any], gpus: list[Gpu], weights: float) -> dict[str, Any]:
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    given = {"enforce_eager": True, **options, "max_model_len": min(1024, options.get("max_model_len", 1024))}
    if gpus:
        needed = weights / len(gpus) * 1.05 + BESIDE_GIB
        given["gpu_memory_utilization"] = min(0.9, needed / min(whole for _, whole, _ in gpus))
    model = LLM(model=str(directory), **given)
    sampling = SamplingParams(temperature=0, max_tokens=TOKENS)
    began = time.monotonic()
    answers = model.generate([QUESTION, "The capital of France is"], sampling)
    seconds = time.monotonic() - began
    tokens = sum(len(answer.outputs[0].token_ids) for answer in answers)
    return {"words": answers[0].outputs[0].text, "tokens": tokens, "seconds": seconds}


def _with_transformers(
    directory: Path, options: dict[str, Any], gpus: list[Gpu], weights: float
) -> dict[str, Any]:
    configuration = json.loads((directory / "config.json").read_text())
    if configuration.get("quantization_config"):
        raise SkippedError("its weights are quantised, for which Transformers needs further packages")
    import torch  # type: ignore[import-not-found]
    import transformers  # type: ignore[import-not-found]

    loading: dict[str, Any] = {"trust_remote_code": True} if options.get("trust_remote_code") else {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **loading)
    # its name until 4.55; a number format that the tutorial leaves to the checkpoint
    old = tuple(map(int, transformers.__version__.split(".")[:2])) < (4, 56)
    loading |= {"torch_dtype" if old else "dtype": "auto"}
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, **loading)
    model = model.to("cuda" if gpus else "cpu")
    text = QUESTION
    if tokenizer.chat_template:
        asked = [{"role": "user", "content": QUESTION}]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    given = tokenizer([text], return_tensors="pt").to(model.device)
    began = time.monotonic()
    ids = model.generate(**given, max_new_tokens=TOKENS, do_sample=False)[0][given["input_ids"].shape[1] :]
    seconds = time.monotonic() - began
    told = {"words": tokenizer.decode(ids, skip_special_tokens=True), "tokens": len(ids), "seconds": seconds}
    if gpus:
        told["memory_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 2)
    return told


if __name__ == "__main__":
    print("\n" + json.dumps(main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))), flush=True)
