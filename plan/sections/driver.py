"""`driver`: the NVIDIA driver."""

from typing import Literal

from pydantic import Field

from plan.sections.base import Section, State


class Driver(Section):
    """The NVIDIA driver of a host with GPUs."""

    managed: bool = Field(
        True,
        description="False: the driver that is there is kept as it is, whatever the plan prefers; nothing of "
        "it is installed, held, mended or removed.",
    )
    state: State = Field(
        "present", description="`absent` removes what was installed for the driver; nouveau comes back."
    )
    source: Literal["nvidia", "distribution"] = Field(
        "nvidia",
        description="`nvidia`: NVIDIA's package repository (`sources.nvidia`); `distribution`: the packages "
        "that Debian or Ubuntu build themselves.",
    )
    branch: int | None = Field(
        None,
        ge=450,
        le=999,
        description="Driver branch to hold to; decided when absent: the driver that is there if it suffices, "
        "else the newest production or long-term branch that serves every GPU.",
        examples=[580],
    )
    modules: Literal["open", "proprietary"] | None = Field(
        None, description="Flavour of the kernel modules; decided by the cards when absent."
    )
    display: bool = Field(
        False, description="True installs the display part of the driver too (X, OpenGL); compute only else."
    )
    persistence: bool = Field(
        True, description="Keeps the GPUs initialised between programs (nvidia-persistenced)."
    )
    reboot: Literal["never", "allowed"] = Field(
        "never",
        description="`allowed`: the host is rebooted when its driver cannot be put to work otherwise, after "
        "its services have stopped. `never`: the host then waits for a reboot of yours and says so.",
    )
