"""Proves on this host that the planned torch computes. Prints one JSON object; exit 1 with a sentence if not.

check_torch.py TORCH_VERSION ACCELERATOR
"""

import importlib.metadata
import json
import sys
import time

import torch

SIZE = 1024
# Relative error of a float32 product whose operands may pass through reduced-precision units.
TOLERANCE = 5e-3


def main(version: str, accelerator: str) -> None:
    # the wheels of the ordinary index are 2.6.0 by their metadata and call themselves 2.6.0+cu124
    installed = importlib.metadata.version("torch")
    if installed != version:
        sys.exit(f"torch is {installed}, planned is {version}")
    report = {"torch": torch.__version__, "cuda": torch.version.cuda, "devices": []}
    if accelerator == "cuda" and not torch.cuda.is_available():
        cuda = torch.version.cuda
        sys.exit(f"torch {version} sees no GPU: no driver, a broken one, or one too old for CUDA {cuda}")
    for device in devices(accelerator):
        report["devices"].append(product(device))
    print(json.dumps(report, sort_keys=True))


def devices(accelerator: str) -> list[str]:
    if accelerator != "cuda":
        return ["cpu"]
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def product(device: str) -> dict:
    """A matrix product on the device, compared with the same in float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIZE, SIZE, generator=generator) for _ in range(2))
    expected = left.double() @ right.double()
    there_left, there_right = left.to(device), right.to(device)
    (there_left @ there_right).sum().item()
    started = time.perf_counter()
    got = (there_left @ there_right).cpu().double()
    seconds = time.perf_counter() - started
    error = ((got - expected).norm() / expected.norm()).item()
    if not error < TOLERANCE:
        sys.exit(f"{device}: a {SIZE}x{SIZE} product is off by {error:.2e}; it must be below {TOLERANCE}")
    name = torch.cuda.get_device_name(device) if device != "cpu" else "CPU"
    return {"device": device, "name": name, "error": error, "gflops": 2 * SIZE**3 / seconds / 1e9}


if __name__ == "__main__":
    main(*sys.argv[1:])
