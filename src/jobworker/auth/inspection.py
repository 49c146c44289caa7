"""What a person wants to know about a certificate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from jobworker.auth.certificate import common_names, load_certificate, serial_number, serial_text
from jobworker.auth.identity import principal_from_pem
from jobworker.auth.pki import PkiError
from jobworker.auth.roles import ROLES_EXTENSION
from jobworker.core.errors import UnauthenticatedError

_ExtensionT = TypeVar("_ExtensionT", bound=x509.ExtensionType)

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}  # as people call them

EXPIRES_SOON = timedelta(days=30)  # enough to renew in between two holidays


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateInfo:
    """A certificate as it is for jobworker.

    `uses` are "authority", or "server" and "client". `name` is the common name. `roles` are what the server reads in
    it, None if it would refuse it as a client's or if it is none. `hosts` are DNS names and IP addresses. `warnings`
    are for people. Times are aware UTC, `serial` and `sha256` (the fingerprint) hexadecimal.
    """

    uses: tuple[str, ...]
    name: str | None
    roles: tuple[str, ...] | None
    hosts: tuple[str, ...]
    subject: str
    issuer: str
    serial: str
    not_before: datetime
    not_after: datetime
    key: str
    sha256: str
    warnings: tuple[str, ...]


def inspect_certificate(pem: bytes, *, now: datetime) -> CertificateInfo:
    """Look at the first certificate in `pem`. Raises `PkiError` with a predicate for the file if that is impossible."""
    count = pem.count(_BEGIN)
    if not count:
        raise PkiError("is a private key" if b"PRIVATE KEY-----" in pem else "has no certificate in PEM form in it")
    try:
        certificate = load_certificate(pem)
    except ValueError as error:
        raise PkiError(f"has a certificate in it that {error}") from None
    uses = _uses(certificate.extensions)
    hosts = _hosts(certificate.extensions)
    roles, refusal = _roles(certificate, uses)
    warnings = [] if refusal is None else [refusal]
    if uses == ("server",) and not hosts:
        warnings.append("it names no host (subjectAltName), so every client will refuse it")
    warnings += validity_warnings(certificate, now)
    if count > 1:
        warnings.append(f"the file has {count} certificates in it; this is the first")
    return CertificateInfo(
        uses=uses,
        name=next(iter(common_names(certificate.subject)), None),
        roles=roles,
        hosts=hosts,
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=serial_text(serial_number(certificate)),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        key=_key(certificate),
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        warnings=tuple(warnings),
    )


def _uses(extensions: x509.Extensions) -> tuple[str, ...]:
    constraints = _find(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        return ("authority",)
    usage = _find(extensions, x509.ExtendedKeyUsage)
    if usage is None or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage:
        return ("server", "client")
    return tuple(name for name, purpose in _PURPOSES.items() if purpose in usage)


def _hosts(extensions: x509.Extensions) -> tuple[str, ...]:
    names = _find(extensions, x509.SubjectAlternativeName)
    if names is None:
        return ()
    addresses = (str(address) for address in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def _roles(certificate: x509.Certificate, uses: tuple[str, ...]) -> tuple[tuple[str, ...] | None, str | None]:
    """What the server reads in a client's certificate: the roles, or why it refuses it."""
    if "client" not in uses or (uses != ("client",) and not _has_roles(certificate.extensions)):
        return None, None
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    try:
        principal = principal_from_pem(pem, now=certificate.not_valid_before_utc)  # its end has a warning of its own
    except UnauthenticatedError as error:
        return None, f"the server will refuse it: {error}"
    return tuple(sorted(principal.roles)), None


def _has_roles(extensions: x509.Extensions) -> bool:
    return any(extension.oid.dotted_string == ROLES_EXTENSION for extension in extensions)


def validity_warnings(certificate: x509.Certificate, now: datetime) -> Iterator[str]:
    """What a person should know of its dates."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start:
        yield "it is not valid yet"
    if now > end:
        yield "it has expired: issue a new one"
    elif end - now < EXPIRES_SOON:
        days = round((end - now) / timedelta(days=1))
        yield f"it expires in {days} days" if days > 1 else "it expires within two days"


def _key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "unknown"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {_CURVES.get(key.curve.name, key.curve.name)}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.removesuffix("PublicKey")


def _find(extensions: x509.Extensions, kind: type[_ExtensionT]) -> _ExtensionT | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
