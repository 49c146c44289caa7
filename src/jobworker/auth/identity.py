"""Who is calling: from a client certificate that TLS has verified to a principal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509

from jobworker.auth.certificate import common_names, load_certificate, serial_number, serial_text
from jobworker.auth.roles import ROLES_EXTENSION, Role, decode_roles
from jobworker.core.errors import UnauthenticatedError

MAX_NAME_CHARS = 64  # X.520's bound of a common name, which openssl keeps to as well

_ROLES_OID = x509.ObjectIdentifier(ROLES_EXTENSION)
_REMEMBERED_CERTIFICATES = 1024  # callers whose certificate is not parsed again at every call; about 2 KiB each


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """Somebody who may call: the common name, the roles and the serial number (hexadecimal) of a certificate."""

    name: str
    roles: frozenset[Role]
    serial: str


def principal_from_pem(pem: bytes, *, now: datetime | None = None) -> Principal:
    """The principal that a client certificate stands for.

    `pem` is the leaf of a chain that TLS has verified. Only the end of its validity is looked at again, because a
    connection can outlive it. Raises `UnauthenticatedError` with a text for the client. Costs about a microsecond for
    a certificate that was seen lately.
    """
    principal, not_after = _read(pem)
    if (now or datetime.now(UTC)) > not_after:
        raise _refusal(f"expired at {not_after:%Y-%m-%d %H:%M:%S} UTC")
    return principal


@lru_cache(maxsize=_REMEMBERED_CERTIFICATES)
def _read(pem: bytes) -> tuple[Principal, datetime]:
    try:
        certificate = load_certificate(pem)
    except ValueError as error:
        raise _refusal(str(error)) from None
    serial = serial_number(certificate)
    if serial <= 0:
        raise _refusal(f"has the serial number {serial}; it must be positive (RFC 5280, 4.1.2.2)")
    principal = Principal(
        name=_name(certificate.subject), roles=_roles(certificate.extensions), serial=serial_text(serial)
    )
    return principal, certificate.not_valid_after_utc


def _name(subject: x509.Name) -> str:
    names = common_names(subject)
    if len(names) != 1:
        raise _refusal(f"has {len(names)} common names in its subject; exactly one is needed")
    name = names[0]
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise _refusal(f"has a common name of {len(name)} characters; 1 to {MAX_NAME_CHARS} are allowed")
    if not name.isprintable():
        raise _refusal(f"has characters in its common name that cannot be printed: {name!r}")
    if name != name.strip():
        raise _refusal(f"has a common name that begins or ends with a space: {name!r}")
    return name


def _roles(extensions: x509.Extensions) -> frozenset[Role]:
    try:
        extension = extensions.get_extension_for_oid(_ROLES_OID)
    except x509.ExtensionNotFound:
        raise _refusal(f"has no role extension ({ROLES_EXTENSION})") from None
    return decode_roles(extension.value.public_bytes())


def _refusal(problem: str) -> UnauthenticatedError:
    return UnauthenticatedError(f"the client certificate {problem}")
