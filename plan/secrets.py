"""What the settings name and the plan never holds: the API key, the private key of a certificate."""

import hashlib
import hmac
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plan import certificates, tokens
from plan.errors import SettingsError
from plan.sections import Access, Models
from plan.tokens import Tokens


@dataclass(frozen=True)
class Secrets:
    """Read from the operator's machine; none of it shows in a repr.

    Attributes:
        api_key: None when the settings name none.
        tokens: of private models.
        warnings: sentences about files that can be used, and should not stay as they are.
        certificate: a certificate and its chain as PEM, and its private key; None when none is given.
    """

    api_key: str | None = field(default=None, repr=False)
    certificate: str | None = field(default=None, repr=False)
    certificate_key: str | None = field(default=None, repr=False)
    tokens: Tokens = field(default_factory=Tokens, repr=False)
    warnings: tuple[str, ...] = ()


def read(
    access: Access, environment: Mapping[str, str] | None = None, models: Models | None = None
) -> Secrets:
    """All that the settings name.

    Raises:
        SettingsError: a file or a variable is missing, or does not hold what it should.
    """
    given = certificate(access)
    key = _pem("certificate_key_file", access.certificate_key_file, "PRIVATE KEY")
    return Secrets(
        api_key=api_key(access, environment),
        certificate=given,
        certificate_key=key,
        tokens=tokens.read(models, environment) if models else Tokens(),
        warnings=(*_readable(access), *(certificates.check(given, key) if given and key else ())),
    )


def api_key(access: Access, environment: Mapping[str, str] | None = None) -> str | None:
    """The API key, read from where the settings say; None when there is none.

    Raises:
        SettingsError: the file or variable is missing, empty, or no plain token.
    """
    environment = os.environ if environment is None else environment
    if access.api_key_env:
        where = f"access.api_key_env: ${access.api_key_env}"
        key = environment.get(access.api_key_env, "").strip()
    elif access.api_key_file:
        path = Path(access.api_key_file).expanduser()
        where = f"access.api_key_file: {path}"
        key = _text(where, path, "Write the key into that file, mode 0600.").strip()
    else:
        return None
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,256}", key):
        raise SettingsError(
            [f"{where}: holds no usable key. Use 16 to 256 letters, digits or . _ ~ + / = - signs."]
        )
    return key


def certificate(access: Access) -> str | None:
    """The certificate that the operator gives to the front, and its chain, as PEM; None when there is none.

    Raises:
        SettingsError: the file is missing, or holds no certificate.
    """
    return _pem("certificate_file", access.certificate_file, "CERTIFICATE")


def salt(key: str) -> str:
    """What the front mixes with every key before it compares.

    Nobody who lacks the key can compute it, so nobody knows what the digest of a guess begins with; and it
    is the same in every run, so a second run changes nothing.
    """
    return hmac.new(key.encode(), b"bringup gateway", hashlib.sha256).hexdigest()


def _pem(setting: str, name: str | None, kind: str) -> str | None:
    if name is None:
        return None
    path = Path(name).expanduser()
    where = f"access.{setting}: {path}"
    text = _text(where, path, "Write the name of a PEM file on this machine.")
    if not re.search(rf"-----BEGIN ([A-Z]+ )?{kind}-----", text) or "ENCRYPTED" in text:
        raise SettingsError([f"{where}: holds no plain {kind.lower()} in PEM form. Name one that does."])
    return text


def _readable(access: Access) -> Iterator[str]:
    """Files of secrets that others on the operator's machine may read."""
    for setting in ("api_key_file", "certificate_key_file"):
        name = getattr(access, setting)
        path = Path(name).expanduser() if name else None
        if path and path.is_file() and path.stat().st_mode & 0o077:
            yield f"access.{setting}: others on this machine may read {path}. Run `chmod 600 {path}`."


def _text(where: str, path: Path, fix: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise SettingsError([f"{where}: {error.strerror}. {fix}"]) from None
    except UnicodeDecodeError:
        return ""
