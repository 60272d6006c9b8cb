"""What every section is made of: strict models, and the types of values that reach a shell or a file."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

State = Literal["present", "absent"]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
ModelId = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?(:[A-Za-z0-9._-]{1,64})?$"
    ),
]
# With `engine: ollama` a name may begin with the host of its registry.
ServedModel = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95}){0,2}(:[A-Za-z0-9._-]{1,64})?$"
    ),
]
Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.+!]{0,40}$")]
Pin = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z0-9,_-]+\])?==[0-9][A-Za-z0-9.+!]*$")
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Flag = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,60}$")]
FlagText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9{\[][A-Za-z0-9 ._,:/=+@{}\[\]\"-]{0,300}$")]
# One word of a command line; systemd would read a `$` in it for itself.
Argument = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 ._,:/=+@{}\[\]\"*?^|()<>%!~-]{1,1000}$")]
Url = Annotated[
    str,
    StringConstraints(
        pattern=r"^(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~%+,=@-]*)*|file:///[A-Za-z0-9._/+-]+)$"
    ),
]

# A LoRA adapter on the hub, with its revision where that is not the default branch.
AdapterId = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}(@[A-Za-z0-9][A-Za-z0-9._/-]{0,95})?$"
    ),
]
# A name that clients ask for beside the model's own; vLLM takes the part before `=` for it.
AdapterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
# A file of the operator's machine, or one inside the model: nothing above its directory.
TemplateFile = Annotated[
    str,
    StringConstraints(
        pattern=r"^(model:([A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*"
        r"|[~A-Za-z0-9._/][A-Za-z0-9._/+ -]*)$"
    ),
]

# A place of models: see plan/places.py.
ModelPlace = Annotated[
    str,
    StringConstraints(
        pattern=r"^(((modelscope|huggingface|mirror)\+)?https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~%+,=@-]*)*"
        r"|host:/[A-Za-z0-9._/+-]*|operator:[~A-Za-z0-9._/][A-Za-z0-9._/+ -]*)$"
    ),
]

# A bundle: a directory on the host, `operator:` and a directory on the operator's machine, or a URL.
BundlePlace = Annotated[
    str,
    StringConstraints(
        pattern=r"^(/[A-Za-z0-9._/+-]+|operator:[~A-Za-z0-9._/][A-Za-z0-9._/+ -]*"
        r"|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~%+,=@-]*)*)$"
    ),
]


class Section(BaseModel):
    """A section of the settings: unknown names are refused, values are never coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
