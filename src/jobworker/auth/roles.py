"""Roles, and the certificate extension that carries them."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from jobworker.core.errors import UnauthenticatedError

ROLES_EXTENSION = "1.2.840.10070.8.1"

_UTF8_STRING = 0x0C  # ASN.1's universal tag, primitive
_LONG_FORM = 0x80  # from this value on, an octet of a length counts the octets that follow
_SHOWN_CHARS = 40  # of a wrong role, in an error that travels in a gRPC trailer


class Role(StrEnum):
    """What somebody is to the server; `jobworker.auth.policy` says what that permits."""

    ADMIN = "admin"
    USER = "user"


def encode_roles(roles: Collection[Role]) -> bytes:
    """The value of the role extension: a DER UTF8String with the roles' names, sorted, separated by commas."""
    content = ",".join(sorted(set(roles))).encode()
    if not 0 < len(content) < _LONG_FORM:
        raise ValueError(f"{len(content)} bytes of roles; 1 to {_LONG_FORM - 1} are possible")
    return bytes([_UTF8_STRING, len(content)]) + content


def decode_roles(der: bytes) -> frozenset[Role]:
    """The roles in the value of a role extension.

    Strict: exactly one DER UTF8String of known names, each once, separated by commas and nothing else. Raises
    `UnauthenticatedError` that says what is wrong.
    """
    text = decode_utf8_string(der)
    if not text:
        raise _refusal("has no role in it")
    roles: set[Role] = set()
    for name in text.split(","):
        try:
            role = Role(name)
        except ValueError:
            known = ", ".join(Role)
            raise _refusal(f"names an unknown role, {name[:_SHOWN_CHARS]!r}; the roles are {known}") from None
        if role in roles:
            raise _refusal(f"names the role {name!r} twice")
        roles.add(role)
    return frozenset(roles)


def decode_utf8_string(der: bytes) -> str:
    """The text of exactly one DER UTF8String. Raises `UnauthenticatedError` that says what is wrong."""
    if not der:
        raise _refusal("is empty")
    if der[0] != _UTF8_STRING:
        raise _refusal(f"has the ASN.1 tag 0x{der[0]:02x}, not a UTF8String's 0x{_UTF8_STRING:02x}")
    length, start = _decode_length(der)
    content = der[start:]
    if len(content) != length:
        raise _refusal(f"says that it has {length} bytes and has {len(content)}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise _refusal("is not valid UTF-8") from None


def _decode_length(der: bytes) -> tuple[int, int]:
    """The length of the contents and where they start. DER has exactly one way to write a length: the shortest."""
    if len(der) == 1:
        raise _refusal("has no length")
    first = der[1]
    if first < _LONG_FORM:
        return first, 2
    start = 2 + (first - _LONG_FORM)
    length = int.from_bytes(der[2:start])
    shortest = (length.bit_length() + 7) // 8
    if length < _LONG_FORM or start != 2 + shortest:
        raise _refusal("has a length that is not DER (indefinite, or longer than it needs to be)")
    return length, start


def _refusal(problem: str) -> UnauthenticatedError:
    return UnauthenticatedError(f"the client certificate's role extension ({ROLES_EXTENSION}) {problem}")
