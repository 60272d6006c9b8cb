"""The tokens of private models and of a proxy: secrets that are read on the operator's machine."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from plan.errors import SettingsError
from plan.sections import Models


@dataclass(frozen=True)
class Tokens:
    """The access tokens of ModelScope and of Hugging Face; None where there is none.

    `proxy`: the URL of the proxy with user and password in it, when it asks for them.
    """

    modelscope: str | None = field(default=None, repr=False)
    huggingface: str | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)

    def headers(self, kind: str) -> dict[str, str]:
        """What a request to a place of that kind carries; never to another place."""
        token = {"modelscope": self.modelscope, "huggingface": self.huggingface}.get(kind)
        return {"Authorization": f"Bearer {token}"} if token else {}

    @property
    def environment_file(self) -> str:
        """The content of the file from which systemd hands them to a download; empty without any."""
        lines = {"MODELSCOPE_API_TOKEN": self.modelscope, "HF_TOKEN": self.huggingface}
        lines |= {"http_proxy": self.proxy, "https_proxy": self.proxy}
        return "".join(f"{name}={token}\n" for name, token in lines.items() if token)


def read(models: Models, environment: Mapping[str, str] | None = None) -> Tokens:
    """The secrets, from where the settings say.

    Raises:
        SettingsError: a file or variable is missing, empty, or no plain token.
    """
    environment = os.environ if environment is None else environment
    return Tokens(
        _token("token", models.token_env, models.token_file, environment),
        _token("huggingface_token", models.huggingface_token_env, models.huggingface_token_file, environment),
        _proxy(models, environment),
    )


def _proxy(models: Models, environment: Mapping[str, str]) -> str | None:
    name, variable, file = "proxy_credentials", models.proxy_credentials_env, models.proxy_credentials_file
    found = _secret(name, variable, file, environment)
    if found is None:
        return None
    where, text = found
    user, colon, password = text.partition(":")
    if not (models.proxy and user and colon and text.isprintable()):
        raise SettingsError([f"{where}: holds no USER:PASSWORD for models.proxy. Set both, or neither."])
    return models.proxy.replace("://", f"://{quote(user, safe='')}:{quote(password, safe='')}@", 1)


def _token(name: str, variable: str | None, file: str | None, environment: Mapping[str, str]) -> str | None:
    found = _secret(name, variable, file, environment)
    if found and not re.fullmatch(r"[A-Za-z0-9._~+/=-]{8,256}", found[1]):
        raise SettingsError(
            [f"{found[0]}: holds no usable token. Copy it from the hub's own page once more."]
        )
    return found[1] if found else None


def _secret(
    name: str, variable: str | None, file: str | None, environment: Mapping[str, str]
) -> tuple[str, str] | None:
    """Where it stands, for a sentence, and what stands there."""
    if variable:
        where, token = f"models.{name}_env: ${variable}", environment.get(variable, "").strip()
    elif file:
        path = Path(file).expanduser()
        where = f"models.{name}_file: {path}"
        try:
            token = path.read_text(errors="replace").strip()
        except OSError as error:
            raise SettingsError([f"{where}: {error.strerror}. Write it there, mode 0600."]) from None
    else:
        return None
    return where, token
