"""`driver`: the NVIDIA driver."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from plan.sections.base import Section, State

Release = Annotated[str, StringConstraints(pattern=r"^[4-9][0-9]{2}\.[0-9]{2,3}(\.[0-9]{2})?$")]
HostAddress = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]{2,45}$")]


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
    version: Release | None = Field(
        None,
        description="Driver release to hold to, with everything that must be of the same one; the newest of "
        "the branch when absent. Refused where the package source does not have it.",
        examples=["570.172.08"],
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
    reset: Literal["never", "allowed"] = Field(
        "allowed",
        description="`allowed`: a GPU whose driver or kernel log asks for it (faulty memory that waits to "
        "be taken out of use, an Xid error that a reset mends) is reset, after the services have stopped. "
        "What a reset does not mend is rebooted where `reboot` allows it.",
    )
    mig: Literal["refuse", "off"] = Field(
        "refuse",
        description="What is done about GPUs that are cut into instances (MIG), for which nothing is "
        "planned. `off`: the instances are removed, whatever they hold, and the GPUs made whole.",
    )
    imex_nodes: list[HostAddress] = Field(
        [],
        description="Addresses of all hosts of one NVLink domain (GB200 and GB300 NVL racks), this one "
        "included; `nvidia-imex` then runs on it. Without it that is installed and held, and not started.",
        examples=[["10.1.0.11", "10.1.0.12"]],
    )
