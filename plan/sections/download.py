"""`models`: downloads without a service."""

from pydantic import Field

from plan.sections.base import Revision, Section, State


class Download(Section):
    """One entry of `models`, under its model id: a download without a service."""

    revision: Revision = Field("master", description="Branch, tag or commit of the model.")
    state: State = Field("present", description="`absent` removes the model's directory.")
