"""Issues the certificates of mutual TLS: a CA, and what it signs for servers and clients.

EC P-256, valid a year from an hour ago, as Antrea's aggregator issues them. Files are `ca.crt`,
`ca.key`, and `<name>.crt`, `<name>.key`; keys can be read by their owner only.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flowvis.errors import SystemRefused

VALIDITY = timedelta(days=365)
SKEW = timedelta(hours=1)  # clocks of other nodes may be behind

Key = ec.EllipticCurvePrivateKey

_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises, at once or later, for what is no certificate or key that it knows."""


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in memory."""

    certificate: x509.Certificate
    key: Key

    def certificate_pem(self) -> bytes:
        """Return the certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """Return the key as PEM, not encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write `<name>.crt` and `<name>.key`; return their paths."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            replace_file(key, self.key_pem(), 0o600)
            replace_file(certificate, self.certificate_pem(), 0o644)
        except OSError as error:
            raise SystemRefused(f"{directory}: cannot write certificates: {error}") from error
        return certificate, key


def issue_ca(
    name: str = "flowvis", *, now: datetime | None = None, validity: timedelta = VALIDITY
) -> Issued:
    """Make a CA that signs servers and clients, and no other CAs."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(name, key, _name(name), now, validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Issued(builder.sign(key, hashes.SHA256()), key)


def issue_server(
    ca: Issued,
    names: Sequence[str],
    *,
    now: datetime | None = None,
    validity: timedelta = VALIDITY,
) -> Issued:
    """Make a server certificate for DNS names and IP addresses; the first is its common name.

    It ends with its CA at the latest.
    """
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    purpose = ExtendedKeyUsageOID.SERVER_AUTH
    return _issue(ca, names[0], purpose, alternatives, now=now, validity=validity)


def issue_client(
    ca: Issued,
    name: str,
    *,
    now: datetime | None = None,
    validity: timedelta = VALIDITY,
) -> Issued:
    """Make a client certificate; the common name is what the server's log calls the peer.

    It ends with its CA at the latest.
    """
    return _issue(ca, name, ExtendedKeyUsageOID.CLIENT_AUTH, None, now=now, validity=validity)


def load_ca(directory: Path) -> Issued:
    """Read the CA that `Issued.write(directory, "ca")` wrote."""
    try:
        return read_issued((directory / "ca.crt").read_bytes(), (directory / "ca.key").read_bytes())
    except (OSError, ValueError) as error:
        raise SystemRefused(
            f"{directory}: no CA can be read from ca.crt and ca.key: {error}"
        ) from error


def read_issued(certificate_pem: bytes, key_pem: bytes) -> Issued:
    """Read a certificate and its key; ValueError where they are none, or not each other's."""
    certificate, key = read_certificate(certificate_pem), read_key(key_pem)
    if key is None or key.public_key() != certificate.public_key():
        raise ValueError("the key is not the EC key of the certificate")
    return Issued(certificate, key)


def read_certificate(pem: bytes) -> x509.Certificate:
    """Read a certificate; ValueError where any part of it cannot be read, now or later."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        # The library reads the parts when they are asked for.
        _ = found.subject, found.issuer, found.extensions, found.public_key()
        _ = found.not_valid_before_utc, found.not_valid_after_utc
    except _UNREADABLE as error:
        raise ValueError(str(error)) from error
    return found


def read_key(pem: bytes) -> Key | None:
    """Read a key that is not encrypted, None if it is no EC key; ValueError where it is none."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except _UNREADABLE as error:
        raise ValueError(str(error)) from error
    return key if isinstance(key, Key) else None


def is_issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether a CA signed a certificate."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True


def _issue(
    ca: Issued,
    name: str,
    purpose: x509.ObjectIdentifier,
    alternatives: x509.SubjectAlternativeName | None,
    *,
    now: datetime | None,
    validity: timedelta,
) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    now = now or datetime.now(UTC)
    validity = min(validity, ca.certificate.not_valid_after_utc - now)
    builder = (
        _builder(name, key, ca.certificate.subject, now, validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(_authority(ca), critical=False)
    )
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    return Issued(builder.sign(ca.key, hashes.SHA256()), key)


def _authority(ca: Issued) -> x509.AuthorityKeyIdentifier:
    """Name the CA's key as the CA itself does, who may have been made by others."""
    try:
        own = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _builder(
    name: str, key: Key, issuer: x509.Name, now: datetime | None, validity: timedelta
) -> x509.CertificateBuilder:
    start = (now or datetime.now(UTC)) - SKEW
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + SKEW + validity)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])  # RFC 5280: ub 64


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file in one step, so that a reader sees the old or the new one; never too open."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    fresh.replace(path)
