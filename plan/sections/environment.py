"""`environment`: the conda environment."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from plan.sections.base import Name, Pin, Section, State, Version


class Environment(Section):
    """The conda environment that torch, vLLM and the ModelScope client live in."""

    name: Name = Field("serve", description="Name of the conda environment.")
    python: Annotated[str, StringConstraints(pattern=r"^3\.(9|1[0-4])$")] | None = Field(
        None, description="Python to use; decided when absent.", examples=["3.12"]
    )
    lock_file: str | None = Field(
        None,
        description="Explicit conda lock (`@EXPLICIT`, one URL#sha256 a line) on the operator's machine; "
        "the built-in lock of the planned Python when absent.",
    )
    torch: Version | None = Field(None, description="torch version to hold to.", examples=["2.9.0+cu128"])
    packages: list[Pin] = Field(
        default_factory=list, description="Further packages, exactly pinned.", examples=[["langfuse==3.0.0"]]
    )
    policy: Literal["native", "compatible"] = Field(
        "compatible",
        description="`native`: no CUDA newer than the driver's own; `compatible`: any minor of its major.",
    )
    prefer: Literal["safe", "newest"] = Field(
        "safe", description="`safe`: the newest vLLM without a known risk; `newest`: with warnings."
    )
    state: State = Field("present", description="`absent` removes the environment.")
