"""What a healthy GPU reaches at the least: a stated share of its published peaks (plan/gpu-floors.toml)."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from plan.gpus import Gpu


@dataclass(frozen=True)
class Floor:
    """`tflops` in the type that the card is good at; GB/s of its memory, and of its link to another GPU.

    `link_gb_s` is None where the board decides how GPUs are connected.
    """

    tflops: float
    memory_gb_s: float
    link_gb_s: float | None = None


def floor_of(gpu: Gpu) -> Floor | None:
    """The floor of a card; None when no peak of it stands in the table."""
    return _floors().get(gpu.name)


@lru_cache(maxsize=1)
def _floors() -> Mapping[str, Floor]:
    table = tomllib.loads(Path(__file__).with_name("gpu-floors.toml").read_text())
    return {
        name: Floor(
            tflops=round(row["tflops"] * table["tflops_share"], 1),
            memory_gb_s=round(row["memory_gb_s"] * table["memory_share"]),
            link_gb_s=round(row["link_gb_s"] * table["link_share"]) if "link_gb_s" in row else None,
        )
        for row in table["card"]
        for name in row["names"]
    }
