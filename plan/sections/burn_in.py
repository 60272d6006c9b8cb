"""`burn_in`: NVIDIA's diagnostic of the GPUs before anything is served."""

from pydantic import Field

from plan.sections.base import Section, State


class BurnIn(Section):
    """NVIDIA's own diagnostic (DCGM), once for the same GPUs and driver, before anything is served."""

    level: int | None = Field(
        None,
        ge=1,
        le=3,
        description="How thorough: 1 the software in seconds, 2 memory and PCIe in minutes, 3 load on every "
        "GPU in up to an hour; none when absent.",
        examples=[2],
    )
    state: State = Field("present", description="`absent` removes DCGM and what it found.")
