"""`serve.<name>.batch`: a file of requests that is answered, and nothing served."""

from typing import Annotated

from pydantic import Field, StringConstraints

from plan.sections.base import Section

# Absolute, two folders deep at least, nothing hidden and nothing that a shell or a unit would expand.
_HOST_FILE = r"(/[A-Za-z0-9_][A-Za-z0-9._+-]{0,95}){2,12}"
HostFile = Annotated[str, StringConstraints(pattern=rf"^{_HOST_FILE}$")]
BatchInput = Annotated[
    str, StringConstraints(pattern=rf"^(host:{_HOST_FILE}|operator:[~A-Za-z0-9._/][A-Za-z0-9._/+ -]*)$")
]


class Batch(Section):
    """`serve.<name>.batch`: how a batch is answered, with `mode: batch`."""

    input: BatchInput | None = Field(
        None,
        description="The requests, a JSON object a line in OpenAI's batch format: `host:/FILE` on the host, "
        "or `operator:FILE` on the operator's machine, which is sent there.",
        examples=["operator:~/questions.jsonl"],
    )
    output: HostFile | None = Field(
        None,
        description="The answers, on the host; `/var/lib/bringup/batch/<name>/answers.jsonl` when absent. "
        "What has its answer there is not asked again.",
        examples=["/data/answers.jsonl"],
    )
    concurrency: int = Field(256, ge=1, le=4096, description="Requests that are under way at once.")
    wait: bool = Field(
        True,
        description="A deploy waits until all is answered. False: it starts the batch, which goes on by "
        "itself.",
    )
