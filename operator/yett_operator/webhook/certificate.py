"""The certificate of the webhook and of the sync stream: made by us, renewed in time.

A small CA signs it.  Two CAs are trusted for a while when the CA itself is renewed, so nobody
ever sees a certificate whose CA he does not know yet.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 730
DAYS = 60
_SKEW = timedelta(minutes=5)
"""Clocks of others may be behind."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything in the Secret, as PEM."""

    ca: bytes
    """The CAs to be trusted, the newest first."""
    ca_key: bytes
    certificate: bytes
    key: bytes

    def to_data(self) -> dict[str, str]:
        """As the data of a Secret."""
        fields = {
            "ca.crt": self.ca,
            "ca.key": self.ca_key,
            "tls.crt": self.certificate,
            "tls.key": self.key,
        }
        return {name: base64.b64encode(value).decode() for name, value in fields.items()}

    @classmethod
    def from_data(cls, data: dict[str, str]) -> Bundle | None:
        """The inverse; None if something is missing or cannot be read."""
        try:
            ca, ca_key, certificate, key = (
                base64.b64decode(data[name]) for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")
            )
            bundle = cls(ca, ca_key, certificate, key)
            bundle.expires()
            serialization.load_pem_private_key(key, None)
            serialization.load_pem_private_key(ca_key, None)
        except (KeyError, ValueError, TypeError):
            return None
        return bundle

    def expires(self) -> datetime:
        """When the serving certificate does."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc


def renewed(bundle: Bundle | None, names: Sequence[str], now: datetime | None = None) -> Bundle:
    """The same bundle, or a new one where less than a third of its time is left, or for other names."""
    now = now or datetime.now(UTC)
    if bundle is None:
        return _signed(*_new_ca(now), b"", names, now)
    cas = x509.load_pem_x509_certificates(bundle.ca)
    if _is_old(cas[0], now):
        ca, key = _new_ca(now)
        still = b"".join(_pem(each) for each in cas if each.not_valid_after_utc > now)
        return _signed(ca, key, still, names, now)
    certificate = x509.load_pem_x509_certificate(bundle.certificate)
    if _is_old(certificate, now) or set(names) - _names(certificate):
        ca_key = serialization.load_pem_private_key(bundle.ca_key, None)
        if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
            return renewed(None, names, now)
        return _signed(cas[0], ca_key, b"".join(map(_pem, cas[1:])), names, now)
    return bundle


def _is_old(certificate: x509.Certificate, now: datetime) -> bool:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - now < (end - begin) / 3


def _names(certificate: x509.Certificate) -> set[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {
        *extension.get_values_for_type(x509.DNSName),
        *map(str, extension.get_values_for_type(x509.IPAddress)),
    }


def _new_ca(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"yett-operator CA {now:%Y-%m-%d}")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _signed(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    others: bytes,
    names: Sequence[str],
    now: datetime,
) -> Bundle:
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "yett-operator")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(min(now + timedelta(days=DAYS), ca.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    return Bundle(_pem(ca) + others, _key_pem(ca_key), _pem(certificate), _key_pem(key))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
