"""The certificate that an operator gives to the front: of its key, and valid until when."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from plan.errors import SettingsError

SOON = timedelta(days=30)


def check(certificate: str, key: str, now: datetime | None = None) -> tuple[str, ...]:
    """Warnings about a certificate that can be used.

    Args:
        certificate: PEM text; the first one is the host's own, its chain follows.
        key: PEM text of the private key, without a password.
        now: the time that counts.

    Raises:
        SettingsError: clients or the front would refuse it.
    """
    now = now or datetime.now(UTC)
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
        private = load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise SettingsError(
            [f"access.certificate_file: cannot be read, or its key cannot ({error}). Name PEM files."]
        ) from None
    own = chain[0]
    if own.public_key() != private.public_key():
        raise SettingsError(
            [
                "access.certificate_key_file: is the key of another certificate. Name that of the "
                "first one in access.certificate_file."
            ]
        )
    if own.not_valid_after_utc <= now:
        raise SettingsError(
            [f"access.certificate_file: ended on {own.not_valid_after_utc:%Y-%m-%d}. Renew it."]
        )
    return tuple(_warnings(chain, now))


def _warnings(chain: list[x509.Certificate], now: datetime) -> Iterator[str]:
    ends = min(one.not_valid_after_utc for one in chain)
    if ends <= now + SOON:
        yield f"access.certificate_file: ends on {ends:%Y-%m-%d}. Renew it before, and deploy again."
    if chain[0].not_valid_before_utc > now:
        yield f"access.certificate_file: begins on {chain[0].not_valid_before_utc:%Y-%m-%d} only."
