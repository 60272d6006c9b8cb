"""`access`: who reaches the services."""

from typing import Annotated

from pydantic import Field, StringConstraints

from plan.sections.base import Section


class Access(Section):
    """Who reaches the services."""

    listen: str = Field(
        "127.0.0.1",
        description="Address to listen on, or a network: then the host's own address in it. Loopback only on "
        "a host with `engine: ollama`, which has no authentication.",
        examples=["10.1.0.0/16"],
    )
    api_key_file: str | None = Field(
        None,
        description="File on the operator's machine whose only line is the API key.",
        examples=["~/.config/bringup/api-key"],
    )
    api_key_env: Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]{0,60}$")] | None = Field(
        None, description="Environment variable on the operator's machine that holds the API key."
    )
