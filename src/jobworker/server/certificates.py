"""The server's certificate, its key and the CA of its clients: read, and checked before any handshake."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from jobworker.auth.certificate import load_certificate, serial_number, serial_text
from jobworker.server.errors import StartError

Version: TypeAlias = tuple[int, ...]
Versions: TypeAlias = tuple[Version, ...]


class KeyType(StrEnum):
    """The types of key that a server can have."""

    ECDSA = "ECDSA"
    RSA = "RSA"

    @property
    def unusable_tls12_suite(self) -> str:
        """A cipher suite of TLS 1.2 that a server with such a key cannot use.

        gRPC has no setting for the version of TLS and accepts 1.2. With this suite as the only one it finds no cipher
        in common with a client of TLS 1.2; the suites of 1.3 are not touched by the setting.
        """
        other = {KeyType.ECDSA: KeyType.RSA, KeyType.RSA: KeyType.ECDSA}[self]
        return f"ECDHE-{other}-AES128-GCM-SHA256"


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateFiles:
    """Where the three files are."""

    certificate: Path
    key: Path
    client_ca: Path

    def versions(self) -> Versions:
        """The versions of the files that are there now. Raises `OSError` for one that is not."""
        return tuple(_version(path.stat()) for path in (self.certificate, self.key, self.client_ca))


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificates:
    """The contents of the three files, PEM, which fit together, and the versions that were read."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes
    key_type: KeyType
    serial: str
    not_after: datetime
    versions: Versions


class ServerCertificate(NamedTuple):
    """The server's certificate: the whole file, the first certificate in it, and what its key is."""

    chain: bytes
    leaf: x509.Certificate
    key_type: KeyType
    version: Version


def read_certificates(files: CertificateFiles) -> Certificates:
    """Read the three files. Raises `StartError` that names the file and what is wrong with it."""
    certificate = read_server_certificate(files.certificate)
    key, key_version = read_server_key(files.key, files.certificate, certificate.leaf)
    client_ca, client_ca_version = read_client_ca(files.client_ca)
    return Certificates(
        certificate=certificate.chain,
        key=key,
        client_ca=client_ca,
        key_type=certificate.key_type,
        serial=serial_text(serial_number(certificate.leaf)),
        not_after=certificate.leaf.not_valid_after_utc,
        versions=(certificate.version, key_version, client_ca_version),
    )


def read_server_certificate(path: Path) -> ServerCertificate:
    """Read a certificate that a server can use now. Raises `StartError`."""
    chain, version = _read(path, "server certificate")
    leaf = _load_leaf(path, chain)
    return ServerCertificate(chain, leaf, _key_type(path, leaf.public_key()), version)


def read_server_key(path: Path, certificate_path: Path, certificate: x509.Certificate) -> tuple[bytes, Version]:
    """Read the key of a certificate. Raises `StartError`, also for the key of another one."""
    key, version = _read(path, "private key")
    if _public_part(path, key) != certificate.public_key():
        raise StartError(f"the private key in {path} is not the one of the certificate in {certificate_path}")
    return key, version


def read_client_ca(path: Path) -> tuple[bytes, Version]:
    """Read the certificates of authorities, of which one at least has not expired. Raises `StartError`."""
    client_ca, version = _read(path, "CA of client certificates")
    _check_authorities(path, client_ca)
    return client_ca, version


def _version(stat: os.stat_result) -> Version:
    """What changes when a file is rewritten or replaced."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(path: Path, what: str) -> tuple[bytes, Version]:
    try:
        with path.open("rb") as file:
            version = _version(os.fstat(file.fileno()))  # before the contents: a later change then is one
            return file.read(), version
    except OSError as error:
        raise StartError(f"cannot read the {what} {path}: {error.strerror}") from None


def _load_leaf(path: Path, chain: bytes) -> x509.Certificate:
    try:
        leaf = load_certificate(chain)
    except ValueError as error:
        raise StartError(f"the server certificate {path} {error}; it must be PEM") from None
    now = datetime.now(UTC)
    if now > leaf.not_valid_after_utc:
        raise StartError(f"the server certificate {path} expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    if now < leaf.not_valid_before_utc:
        raise StartError(
            f"the server certificate {path} is valid only from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC on; "
            "is the clock right?"
        )
    if not _is_for_servers(leaf):
        raise StartError(
            f"the server certificate {path} is not for servers (extendedKeyUsage), so every client would refuse it; "
            "`jobworker pki issue-server` makes one that is"
        )
    return leaf


def _is_for_servers(leaf: x509.Certificate) -> bool:
    """Whether clients accept it as a server's, which they do of one that says no purpose."""
    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in purposes or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in purposes


def _key_type(path: Path, key: PublicKeyTypes) -> KeyType:
    match key:
        case ec.EllipticCurvePublicKey():
            return KeyType.ECDSA
        case rsa.RSAPublicKey():
            return KeyType.RSA
        case _:
            name = type(key).__name__.lstrip("_").removesuffix("PublicKey")
            raise StartError(f"the server certificate {path} has an {name} key; only ECDSA and RSA keys are supported")


def _public_part(path: Path, key: bytes) -> PublicKeyTypes:
    try:
        return load_pem_private_key(key, password=None).public_key()
    except TypeError:
        raise StartError(f"the private key {path} is encrypted; the server needs it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise StartError(f"{path} is no private key in PEM form") from None


def _check_authorities(path: Path, pem: bytes) -> None:
    try:
        authorities: Sequence[x509.Certificate] = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise StartError(f"the CA of client certificates {path} is not one certificate or more in PEM form") from None
    if all(datetime.now(UTC) > authority.not_valid_after_utc for authority in authorities):
        raise StartError(f"the CA of client certificates {path} has expired")
