"""`driver`: the NVIDIA driver."""

from pydantic import Field

from plan.sections.base import Section


class Driver(Section):
    """The NVIDIA driver."""

    managed: bool = Field(
        True, description="False: the driver that is there is kept, whatever the plan prefers."
    )
