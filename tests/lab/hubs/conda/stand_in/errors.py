"""Errors under the names that conda prints."""


class CondaError(Exception):
    """Printed as `Name: message`, exit status 1."""


class EnvironmentLocationNotFound(CondaError):  # noqa: N818  (conda's name)
    def __init__(self, prefix: object) -> None:
        super().__init__(f"Not a conda environment: {prefix}")


class EnvironmentNameNotFound(CondaError):  # noqa: N818  (conda's name)
    def __init__(self, name: str) -> None:
        super().__init__(
            f"Could not find conda environment: {name}\n"
            "You can list all discoverable environments with `conda info --envs`."
        )


class CondaEnvironmentError(CondaError): ...


class CondaHTTPError(CondaError): ...


class ChecksumMismatchError(CondaError): ...


class ParseError(CondaError): ...


class CondaValueError(CondaError): ...
