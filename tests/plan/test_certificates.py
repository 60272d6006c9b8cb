"""The operator's certificate: of its key, and valid for a while yet, before any host is asked."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from plan import secrets
from plan.certificates import check
from plan.errors import SettingsError
from plan.sections import Access

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def made(days: int, begins: int = -1) -> tuple[str, str]:
    """A certificate that is valid for so many days more, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gpu-1")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW + timedelta(days=min(begins, days - 1)))
        .not_valid_after(NOW + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    return built.public_bytes(encoding).decode(), private.decode()


def refused(certificate: str, key: str) -> str:
    with pytest.raises(SettingsError) as error:
        check(certificate, key, NOW)
    (sentence,) = error.value.sentences
    return sentence


def test_one_that_is_valid_for_long_needs_no_word() -> None:
    assert check(*made(365), NOW) == ()


def test_one_that_ends_soon_is_told_with_its_day() -> None:
    assert check(*made(20), NOW) == (
        "access.certificate_file: ends on 2026-06-21. Renew it before, and deploy again.",
    )


def test_the_day_of_a_chain_is_the_first_on_which_a_part_of_it_ends() -> None:
    own, key = made(365)
    (warning,) = check(own + made(10)[0], key, NOW)
    assert "2026-06-11" in warning


def test_one_that_has_ended_is_refused() -> None:
    assert refused(*made(-3)) == "access.certificate_file: ended on 2026-05-29. Renew it."


def test_the_key_of_another_one_is_refused() -> None:
    assert "is the key of another certificate" in refused(made(365)[0], made(365)[1])


def test_what_is_no_certificate_is_refused() -> None:
    nothing = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    assert "cannot be read" in refused(nothing, made(365)[1])


def test_files_of_keys_that_others_may_read_are_told(tmp_path: Path) -> None:
    key = tmp_path / "api-key"
    key.write_text("a-key-that-nobody-may-see-0123")
    access = Access(api_key_file=str(key))
    key.chmod(0o600)
    assert secrets.read(access).warnings == ()
    key.chmod(0o644)
    (warning,) = secrets.read(access).warnings
    assert warning == f"access.api_key_file: others on this machine may read {key}. Run `chmod 600 {key}`."
