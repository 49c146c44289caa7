"""A small certificate authority, for those who have none: ECDSA P-256, in memory.

`jobworker.auth.pki_directory` keeps it in files.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from jobworker.auth.certificate import load_certificate
from jobworker.auth.identity import MAX_NAME_CHARS
from jobworker.auth.roles import ROLES_EXTENSION, Role, encode_roles
from jobworker.core.errors import InvalidArgumentError

AUTHORITY_DAYS = 3650
SERVER_DAYS = 365
MAX_SERVER_DAYS = 825  # what the big TLS clients accept from private authorities at most
CLIENT_DAYS = 90
MAX_CLIENT_DAYS = 365  # nothing revokes a certificate but its end

_BACKDATED = timedelta(hours=1)  # valid at once where clocks are slow; Let's Encrypt does the same
_DNS_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?({_DNS_LABEL}\.)*(?![0-9]+$){_DNS_LABEL}")  # the last label is no number: 10.0.0.300
_MAX_DNS_CHARS = 253
_CLIENT_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{MAX_NAME_CHARS - 1}}}")


class PkiError(Exception):
    """Certificates cannot be made this way; the text says why and what to do instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """A certificate and its private key, PEM, and the end of the certificate's validity."""

    certificate: bytes
    key: bytes = field(repr=False)
    not_after: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Authority:
    """Whoever's certificate this is issues others with it. RSA and ECDSA keys, ours or made elsewhere."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes) -> Self:
        """Raises `PkiError` unless the two belong together and may issue certificates."""
        try:
            loaded = load_certificate(certificate)
        except ValueError as error:
            raise PkiError(f"the authority's certificate {error}") from None
        if not _is_authority(loaded):
            raise PkiError("the certificate is not an authority's: it may not issue others")
        private = _load_key(key)
        if private.public_key() != loaded.public_key():
            raise PkiError("the authority's certificate and key do not belong together")
        return cls(certificate=loaded, key=private)

    def issue_server(self, hosts: Sequence[str], *, days: int = SERVER_DAYS, now: datetime | None = None) -> Credential:
        """A certificate for a server that is reached under these DNS names and IP addresses.

        Raises `InvalidArgumentError` for a host that is neither, and for more than `MAX_SERVER_DAYS`.
        """
        if not hosts:
            raise InvalidArgumentError("host", "at least one name or address is needed, as clients will write it")
        names = [_general_name(host) for host in dict.fromkeys(hosts)]
        common_name = hosts[0] if len(hosts[0]) <= MAX_NAME_CHARS else "jobworker server"
        return self._issue(
            common_name,
            ExtendedKeyUsageOID.SERVER_AUTH,
            x509.SubjectAlternativeName(names),
            lifetime=_lifetime(days, MAX_SERVER_DAYS),
            now=now,
        )

    def issue_client(
        self, name: str, roles: Collection[Role], *, days: int = CLIENT_DAYS, now: datetime | None = None
    ) -> Credential:
        """A certificate that makes its holder the principal `name` with these roles.

        Raises `InvalidArgumentError` for a name that `check_name` refuses, and for more than `MAX_CLIENT_DAYS`.
        """
        check_name(name)
        if not roles:
            raise InvalidArgumentError("role", "at least one is needed; without, the server refuses every call")
        return self._issue(
            name,
            ExtendedKeyUsageOID.CLIENT_AUTH,
            # not critical: TLS libraries refuse certificates with critical extensions that they do not know
            x509.UnrecognizedExtension(x509.ObjectIdentifier(ROLES_EXTENSION), encode_roles(roles)),
            lifetime=_lifetime(days, MAX_CLIENT_DAYS),
            now=now,
        )

    def _issue(
        self,
        common_name: str,
        usage: x509.ObjectIdentifier,
        extension: x509.ExtensionType,
        *,
        lifetime: timedelta,
        now: datetime | None,
    ) -> Credential:
        start = _whole_seconds(now)
        end = start + lifetime
        authority_end = self.certificate.not_valid_after_utc
        if end > authority_end:
            raise PkiError(
                f"the authority's own certificate ends on {authority_end:%Y-%m-%d}, before the new one would on "
                f"{end:%Y-%m-%d}: ask for fewer days or make a new authority"
            )
        key = _new_key()
        builder = (
            _builder(
                subject=_named(common_name),
                issuer=self.certificate.subject,
                key=key.public_key(),
                start=max(start - _BACKDATED, self.certificate.not_valid_before_utc),
                end=end,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(self._key_identifier(), critical=False)
            .add_extension(extension, critical=False)
        )
        return _credential(builder, key, signed_by=self.key, end=end)

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def create_authority(*, now: datetime | None = None) -> Credential:
    """A new authority with a name that no other has. `Authority.from_pem` issues with it."""
    start = _whole_seconds(now)
    end = start + timedelta(days=AUTHORITY_DAYS)
    key = _new_key()
    # two authorities of the same name make every error of verification misleading
    name = _named(f"jobworker CA {secrets.token_hex(4)}")
    builder = (
        _builder(subject=name, issuer=name, key=key.public_key(), start=start - _BACKDATED, end=end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return _credential(builder, key, signed_by=key, end=end)


def check_name(name: str) -> None:
    """Raise `InvalidArgumentError` unless `name` can be a principal's and a file's."""
    if not _CLIENT_NAME.fullmatch(name):
        raise InvalidArgumentError(
            "name",
            f"{name!r} cannot be used; 1 to {MAX_NAME_CHARS} of A-Z a-z 0-9 . _ @ - can, a letter or digit first",
        )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host if "%" not in host else ""))  # a zone means nothing elsewhere
    except ValueError:
        if len(host) <= _MAX_DNS_CHARS and _DNS_NAME.fullmatch(host):
            return x509.DNSName(host)
    raise InvalidArgumentError(
        "host", f"{host!r} is neither a DNS name nor an IP address (without a port, a scheme, brackets or a zone)"
    )


def _lifetime(days: int, maximum: int) -> timedelta:
    if not 1 <= days <= maximum:
        raise InvalidArgumentError("days", f"must be 1 to {maximum}")
    return timedelta(days=days)


def _whole_seconds(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).replace(microsecond=0)


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    *, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:  # cryptography's word for a missing password
        raise PkiError("the authority's key is encrypted; decrypt it first (openssl pkey -in ... -out ...)") from None
    except (ValueError, UnsupportedAlgorithm):
        raise PkiError("the authority's key is not a private key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PkiError("the authority's key is neither ECDSA nor RSA")
    return key


def _credential(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    *,
    signed_by: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    end: datetime,
) -> Credential:
    return Credential(
        certificate=builder.sign(signed_by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        not_after=end,
    )
