"""Proves on this host that the planned torch computes. Prints one JSON object; exit 1 with a sentence if not.

check_torch.py TORCH_VERSION ACCELERATOR [FLOORS]

FLOORS is a JSON list with an entry per GPU in PCI order: null, or what the card should reach at least:
{"tflops": ..., "memory_gb_s": ..., "link_gb_s": ... or null}. A figure below its floor is a warning, on
standard error and in the JSON; a wrong product, copy or sum is a failure.
"""

import importlib.metadata
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROVED_SIZE, TIMED_SIZE, TIMED_SIZE_IN_LITTLE_MEMORY = 1024, 8192, 4096
COPIED_MIB, COPIED_MIB_IN_LITTLE_MEMORY = 1024, 128
SENT_MIB, SENT_MIB_IN_LITTLE_MEMORY = 256, 16
LITTLE_MEMORY_GIB = 4
# What the driver and a desktop take; a card with more in use is being worked on, and its figures say nothing.
MOST_IN_USE = 0.1
TIMED_SECONDS = 1.0
COLLECTIVE_SECONDS = 180

# Per type: the relative error of a whole product (Frobenius norm), and the error of its worst element in
# units of the elements' standard deviation. Operands are exact, so what remains is the rounding of the result
# and of partial sums: bfloat16 keeps 8 bits, float16 11, float32 24, of which tensor cores may use 10.
TOLERANCES = {"bfloat16": (1e-2, 1e-1), "float16": (5e-3, 5e-2), "float32": (5e-3, 5e-2)}

# What is measured -> how it is called, with its unit.
FIGURES = {
    "tflops": "{:.0f} TFLOP/s in {dtype}",
    "memory_gb_s": "{:.0f} GB/s of memory",
    "link_gb_s": "{:.0f} GB/s to the next GPU",
}


class WrongError(Exception):
    """Something computed wrongly, or not at all; one sentence."""


# -- what needs no torch ---------------------------------------------------------------------------------


def type_for(capability):
    """The type that a card of this compute capability is good at."""
    if capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"


def sizes(free_bytes):
    """For so much free memory: the side of the timed product, the MiB copied within a GPU, and those sent."""
    if free_bytes < LITTLE_MEMORY_GIB << 30:
        return TIMED_SIZE_IN_LITTLE_MEMORY, COPIED_MIB_IN_LITTLE_MEMORY, SENT_MIB_IN_LITTLE_MEMORY
    return TIMED_SIZE, COPIED_MIB, SENT_MIB


def times_for(seconds_of_one):
    """How often to repeat what takes so long, for a measurement of about a second."""
    return max(1, min(1000, math.ceil(TIMED_SECONDS / max(seconds_of_one, 1e-6))))


def judge(device, size, dtype, error, worst=None):
    """Raises WrongError unless the errors are within the type's tolerance; NaN is not."""
    whole, element = TOLERANCES[dtype]
    if not error < whole:
        raise WrongError(
            f"{device}: a {size}x{size} product in {dtype} is off by {error:.1e}; "
            f"it must be below {whole:.0e}"
        )
    if worst is not None and not worst < element:
        raise WrongError(
            f"{device}: an element of a {size}x{size} product in {dtype} is off by {worst:.1e} standard "
            f"deviations; it must be below {element:.0e}"
        )


def shortfalls(device):
    """What of a device's figures lies below its floor, in sentences; nothing of one that others work on."""
    floor = device.get("floor")
    if not floor or device.get("in_use"):
        return []
    found = []
    for name, words in FIGURES.items():
        got, least = device.get(name), floor.get(name)
        if got is not None and least is not None and got < least:
            said = words.format(got, dtype=device["dtype"])
            found.append(
                f"{device['device']} ({device['name']}) reaches {said}, expected are {least:.0f} or more. "
                "Look at its clocks, power and temperature: nvidia-smi -q -d PERFORMANCE,POWER,TEMPERATURE."
            )
    return found


def ring(count):
    """Every GPU to the next, the last one to the first; none for one alone."""
    return [(index, (index + 1) % count) for index in range(count)] if count > 1 else []


def bus_gb_s(sent_bytes, seconds, ranks):
    """Bandwidth of an all-reduce, as NCCL's own tests reckon it: 2(n-1)/n of the data go in and out."""
    return sent_bytes * 2 * (ranks - 1) / ranks / seconds / 1e9


def loopback(environment):
    """The environment of a rank: NCCL and gloo talk over loopback only and find each other through a file."""
    return environment | {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"}


# -- on one device ---------------------------------------------------------------------------------------


def prove_product(torch, device, dtype):
    """A product on the device, compared element by element with float64 on the CPU. Returns its error."""
    generator = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    left, right = (torch.randn(PROVED_SIZE, PROVED_SIZE, generator=generator).to(kind) for _ in range(2))
    expected = left.double() @ right.double()
    got = (left.to(device) @ right.to(device)).cpu().double()
    error = ((got - expected).norm() / expected.norm()).item()
    worst = ((got - expected).abs().max() / expected.std()).item()
    judge(device, PROVED_SIZE, dtype, error, worst)
    return error


def time_product(torch, device, dtype, size):
    """TFLOP/s of a large product, and its error by Freivalds' test: (AB)x against A(Bx)."""
    kind = getattr(torch, dtype)
    generator = torch.Generator(device).manual_seed(1)
    left, right = (torch.randn(size, size, generator=generator, device=device, dtype=kind) for _ in range(2))
    result = torch.empty(size, size, device=device, dtype=kind)
    seconds = measure(torch, device, lambda: torch.mm(left, right, out=result))
    vector = torch.randn(size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    got = result.cpu().double() @ vector
    expected = left.cpu().double() @ (right.cpu().double() @ vector)
    judge(device, size, dtype, ((got - expected).norm() / expected.norm()).item())
    return 2 * size**3 / seconds / 1e12


def time_memory(torch, device, mib):
    """GB/s at which the device reads and writes its own memory; the copy must be the original."""
    source = torch.arange(mib << 18, dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    seconds = measure(torch, device, lambda: target.copy_(source))
    if not torch.equal(source, target):
        raise WrongError(f"{device}: a copy of {mib} MiB within its memory differs from the original")
    return 2 * (mib << 20) / seconds / 1e9


def measure(torch, device, work):
    """Seconds that one run of the work takes, of about a second's worth of them."""
    finish = torch.cuda.synchronize if device.startswith("cuda") else (lambda _: None)

    def timed(count):
        finish(device)
        started = time.perf_counter()
        for _ in range(count):
            work()
        finish(device)
        return time.perf_counter() - started

    timed(2)
    count = times_for(timed(1))
    return timed(count) / count


def check_gpu(torch, index, floor):
    """Everything that is proved and measured on one GPU."""
    device = f"cuda:{index}"
    free, total = torch.cuda.mem_get_info(index)
    size, mib, _ = sizes(free)
    dtype = type_for(torch.cuda.get_device_capability(index))
    report = {
        "device": device,
        "name": torch.cuda.get_device_name(index),
        "dtype": dtype,
        "in_use": 1 - free / total > MOST_IN_USE,
        "floor": floor,
        "error": prove_product(torch, device, dtype),
        "tflops": time_product(torch, device, dtype, size),
        "memory_gb_s": time_memory(torch, device, mib),
    }
    torch.cuda.empty_cache()
    return report


def check_cpu(torch):
    """A product on the CPU, as on a host without GPUs."""
    error = prove_product(torch, "cpu", "float32")
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(PROVED_SIZE, PROVED_SIZE, generator=generator) for _ in range(2))
    started = time.perf_counter()
    left @ right
    tflops = 2 * PROVED_SIZE**3 / (time.perf_counter() - started) / 1e12
    return {"device": "cpu", "name": "CPU", "dtype": "float32", "error": error, "tflops": tflops}


# -- between devices -------------------------------------------------------------------------------------


def send(torch, source, target, mib):
    """GB/s of a copy from one GPU to another, which must arrive as it left."""
    original = torch.randint(0, 1 << 30, (mib << 18,), dtype=torch.int32)
    there, here = original.to(f"cuda:{source}"), torch.empty_like(original, device=f"cuda:{target}")

    def copy():
        here.copy_(there)
        torch.cuda.synchronize(source)

    seconds = measure(torch, f"cuda:{target}", copy)
    if not torch.equal(here.cpu(), original):
        raise WrongError(f"cuda:{source} to cuda:{target}: a copy of {mib} MiB arrives as something else")
    return (mib << 20) / seconds / 1e9


def all_reduce(backend, ranks, mib):
    """A sum over all ranks, each in a process of its own. Returns what rank 0 measured."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        started = [
            subprocess.Popen(
                [sys.executable, __file__, "rank", str(rank), str(ranks), backend, str(mib), str(store)],
                env=loopback(dict(os.environ)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(ranks)
        ]
        try:
            return json.loads(_answers(started, backend, time.monotonic() + COLLECTIVE_SECONDS)[0])
        finally:
            for process in started:
                process.kill()
                process.wait()


def _answers(started, backend, deadline):
    """What the ranks printed. A rank that fails, or all of them hanging, ends the others."""
    what = f"{backend}: an all-reduce over {len(started)} ranks"
    while any(process.poll() is None for process in started):
        if any(process.poll() for process in started):
            break
        if time.monotonic() > deadline:
            raise WrongError(f"{what} did not end within {COLLECTIVE_SECONDS} s")
        time.sleep(0.1)
    failed = [process for process in started if process.poll()]
    if failed:
        last = failed[0].communicate()[1].strip().splitlines()[-1:] or [f"exit {failed[0].returncode}"]
        raise WrongError(f"{what} failed: {last[0]}")
    return [process.communicate()[0] for process in started]


def rank(number, ranks, backend, mib, store):
    """One process of the all-reduce: sums whole numbers, which every type of sum gets exactly right."""
    import datetime

    import torch
    import torch.distributed as distributed

    device = f"cuda:{number}" if backend == "nccl" else "cpu"
    if backend == "nccl":
        torch.cuda.set_device(number)
    distributed.init_process_group(
        backend,
        init_method=f"file://{store}",
        rank=number,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=COLLECTIVE_SECONDS),
    )
    pattern = torch.arange(mib << 18, device=device, dtype=torch.float32).remainder_(251)
    data = pattern * (number + 1)
    distributed.all_reduce(data)
    if not torch.equal(data, pattern * (ranks * (ranks + 1) // 2)):
        sys.exit(f"rank {number} got a wrong sum")
    data.zero_()
    # one process must not repeat more often than another, so all of them do what the slowest would
    seconds = torch.tensor([_seconds(torch, distributed, data, 1)], device=device)
    distributed.all_reduce(seconds, op=distributed.ReduceOp.MAX)
    count = times_for(seconds.item())
    gb_s = bus_gb_s(mib << 20, _seconds(torch, distributed, data, count) / count, ranks)
    print(json.dumps({"backend": backend, "ranks": ranks, "gb_s": gb_s}))
    distributed.destroy_process_group()


def _seconds(torch, distributed, data, count):
    started = time.perf_counter()
    for _ in range(count):
        distributed.all_reduce(data)
    if data.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


# -- the whole -------------------------------------------------------------------------------------------


def check(version, accelerator, floors):
    """Everything, as one JSON object."""
    import torch

    # the wheels of the ordinary index are 2.6.0 by their metadata and call themselves 2.6.0+cu124
    installed = importlib.metadata.version("torch")
    if installed != version:
        raise WrongError(f"torch is {installed}, planned is {version}")
    report = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": loaded_driver(),
        "links": [],
        "all_reduce": None,
    }
    if accelerator != "cuda":
        return report | {"devices": [check_cpu(torch)], "warnings": []}
    count = gpus(torch, version, len(floors))
    mib = min(sizes(torch.cuda.mem_get_info(index)[0])[2] for index in range(count))
    devices = [check_gpu(torch, index, floors[index] if floors else None) for index in range(count)]
    for source, target in ring(count):
        gb_s = devices[source]["link_gb_s"] = send(torch, source, target, mib)
        report["links"].append({"from": f"cuda:{source}", "to": f"cuda:{target}", "gb_s": gb_s})
    torch.cuda.empty_cache()
    if count > 1:
        report["all_reduce"] = all_reduce("nccl", count, mib)
    warnings = [sentence for device in devices for sentence in shortfalls(device)]
    return report | {"devices": devices, "warnings": warnings}


def loaded_driver():
    """The version of the loaded kernel module; None where there is none to be read."""
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return None


def gpus(torch, version, planned):
    """How many GPUs torch sees: all that are planned."""
    if not torch.cuda.is_available():
        why = f"no driver, a broken one, or one too old for CUDA {torch.version.cuda}"
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines()[0]
        raise WrongError(f"torch {version} sees no GPU: {why}")
    count = torch.cuda.device_count()
    if planned and count != planned:
        raise WrongError(f"torch {version} sees {count} GPUs, the host has {planned}")
    return count


def main(version, accelerator, floors="[]"):
    # in the order of the bus, which is that of FLOORS, and not of speed; torch reads this when it starts CUDA
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    try:
        report = check(version, accelerator, json.loads(floors))
    except WrongError as error:
        sys.exit(str(error))
    except RuntimeError as error:
        # torch's word for everything that CUDA reports: memory that is short, a fault, a reset
        sys.exit(f"torch {version} cannot compute here: {str(error).splitlines()[0]}")
    for warning in report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(report, sort_keys=True))


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        _, _, number, ranks, backend, mib, store = sys.argv
        rank(int(number), int(ranks), backend, int(mib), store)
    else:
        main(*sys.argv[1:])
