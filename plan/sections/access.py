"""`access`: who reaches the services."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from plan.sections.base import Section

Network = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f.:]{2,45}(/[0-9]{1,3})?$")]


class Access(Section):
    """Who reaches the services."""

    listen: str = Field(
        "127.0.0.1",
        description="Address to listen on, or a network: then the host's own address in it. Beyond loopback "
        "the services stay on loopback, and a front takes the address, which asks for the key.",
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
    tls: Literal["on", "off"] = Field(
        "on",
        description="`on`: beyond loopback only https, with the certificate below or else with one that the "
        "host makes and signs itself; its fingerprint is shown. `off`: plain http, the key included.",
    )
    certificate_file: str | None = Field(
        None,
        description="File on the operator's machine with the certificate and its chain (PEM).",
        examples=["~/.config/bringup/certificate.pem"],
    )
    certificate_key_file: str | None = Field(
        None,
        description="File on the operator's machine with that certificate's private key (PEM, no password).",
        examples=["~/.config/bringup/certificate-key.pem"],
    )
    clients: list[Network] = Field(
        default_factory=list,
        description="Addresses or networks that may connect at all beyond loopback; when empty, anyone who "
        "has the key.",
        examples=[["10.1.0.0/16"]],
    )
    monitoring: list[Network] = Field(
        default_factory=list,
        description="Addresses or networks that may read `/metrics` and `/health` beyond loopback, without "
        "the key; nobody else may.",
        examples=[["10.1.0.9", "10.2.0.0/24"]],
    )
    max_body_mib: int = Field(16, ge=1, le=1024, description="Largest body of a request, in MiB.")
    requests_per_second: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Requests per second that one client address may make over a longer time; four times as "
        "many at once.",
    )
