"""Certificates for tests, made at run time: good ones, and every kind of bad one.

`Authority` makes them in memory with the cryptography library; `OpensslAuthority` runs plain `openssl` commands, as a
person does who has a CA already. Neither uses the code under test.
"""

from __future__ import annotations

import ipaddress
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROLES_OID = "1.2.840.10070.8.1"

KeyType = Literal["ecdsa", "rsa"]

# From when to when a certificate is valid, relative to now.
VALID = (timedelta(days=-1), timedelta(days=1))
EXPIRED = (timedelta(days=-2), timedelta(days=-1))
NOT_YET_VALID = (timedelta(days=1), timedelta(days=2))
_AUTHORITY = (timedelta(days=-3), timedelta(days=3))  # around all of them


@dataclass(frozen=True, kw_only=True, slots=True)
class CredentialFiles:
    """Where a certificate and its key were written."""

    certificate: Path
    key: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, stem: str) -> CredentialFiles:
        """Write `stem`.crt and `stem`.key, over what may be there, as somebody who renews a certificate does."""
        files = CredentialFiles(certificate=directory / f"{stem}.crt", key=directory / f"{stem}.key")
        files.certificate.write_bytes(self.certificate)
        files.key.touch(mode=0o600)
        files.key.write_bytes(self.key)
        return files


class Authority:
    """A certificate authority in memory.

    `certificate` and `key` are its own, PEM. Every certificate that it issues has its own key of the asked-for type.
    """

    def __init__(self, name: str = "test CA", *, key: KeyType = "ecdsa") -> None:
        self._key = _new_key(key)
        self._name = _subject(name)
        builder = self._builder(self._name, self._key, _AUTHORITY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = _sign(builder, self._key)
        self.key = _private_pem(self._key)

    def server(self, *hosts: str, key: KeyType = "ecdsa", lifetime: tuple[timedelta, timedelta] = VALID) -> Credential:
        """Issue a server certificate for DNS names and IP addresses; without any, for localhost and its addresses."""
        names = [_general_name(host) for host in hosts or ("localhost", "127.0.0.1", "::1")]
        private = _new_key(key)
        builder = (
            self._builder(_subject("test server"), private, lifetime)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        return Credential(certificate=_sign(builder, self._key), key=_private_pem(private))

    def client(  # noqa: PLR0913 -- one option for each way in which a client certificate can be wrong
        self,
        *common_names: str,
        roles: str | bytes | None = "user",
        roles_again: str | bytes | None = None,
        critical: bool = False,
        lifetime: tuple[timedelta, timedelta] = VALID,
        key: KeyType = "ecdsa",
        also: Sequence[x509.ExtensionType] = (),
    ) -> Credential:
        """Issue a client certificate.

        `roles` is the text of the role extension, whatever it says; bytes are put into the extension as they are (so
        they can be malformed DER); None leaves the extension away. `roles_again` is the same for a second extension of
        that kind, which no certificate may have. `common_names` may be none or several. `also` are further extensions.
        """
        private = _new_key(key)
        extensions: list[x509.Extension[x509.ExtensionType]] = [
            _extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])),
            *(_roles_extension(value, critical=critical) for value in (roles, roles_again) if value is not None),
            *(_extension(extension) for extension in also),
        ]
        builder = self._builder(_subject(*common_names), private, lifetime, extensions)
        return Credential(certificate=_sign(builder, self._key), key=_private_pem(private))

    def _builder(
        self,
        subject: x509.Name,
        key: _PrivateKey,
        lifetime: tuple[timedelta, timedelta],
        extensions: list[x509.Extension[x509.ExtensionType]] | None = None,
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        # the extensions are given here and not with add_extension, which refuses to add one twice
        return (
            x509.CertificateBuilder(extensions=extensions or [])
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + lifetime[0])
            .not_valid_after(now + lifetime[1])
        )


class OpensslAuthority:
    """A certificate authority made of files and plain `openssl` commands in `directory`."""

    def __init__(self, directory: Path, name: str = "openssl test CA") -> None:
        self._directory = directory
        command = ["req", "-x509", *_NEW_KEY, "-subj", f"/CN={name}", "-days", "2"]
        self._openssl(*command, "-keyout", "ca.key", "-out", "ca.crt")
        self.certificate = (directory / "ca.crt").read_bytes()

    def server(self, stem: str = "server", *, names: str = "DNS:localhost,IP:127.0.0.1,IP:::1") -> Credential:
        """Issue a server certificate; `names` is the value of subjectAltName as openssl spells it."""
        return self._issue(
            stem, f"subjectAltName = {names}\nextendedKeyUsage = serverAuth\n", subject="/CN=openssl server"
        )

    def client(
        self,
        common_name: str,
        *,
        extension: str | None = "ASN1:UTF8String:user",
        serial: int | None = None,
        subject: str | None = None,
    ) -> Credential:
        """Issue a client certificate.

        `extension` is the right-hand side of openssl's extension line, such as "ASN1:UTF8String:admin,user" or
        "DER:0C:04:75:73:65:72"; None leaves it away. `subject` is openssl's -subj, by default the common name alone.
        """
        lines = "extendedKeyUsage = clientAuth\n"
        if extension is not None:
            lines += f"{ROLES_OID} = {extension}\n"
        return self._issue("client", lines, subject=subject or f"/CN={common_name}", serial=serial)

    def _issue(self, stem: str, extension_lines: str, *, subject: str, serial: int | None = None) -> Credential:
        config = self._directory / "openssl.cnf"
        config.write_text(f"[req]\ndistinguished_name = subject\n[subject]\n[extensions]\n{extension_lines}")
        command = ["req", "-x509", *_NEW_KEY, "-subj", subject, "-utf8", "-days", "2"]
        command += ["-config", config.name, "-extensions", "extensions", "-CA", "ca.crt", "-CAkey", "ca.key"]
        command += ["-keyout", f"{stem}.key", "-out", f"{stem}.crt"]
        if serial is not None:
            command += ["-set_serial", str(serial)]
        self._openssl(*command)
        certificate, key = (self._directory / f"{stem}{end}" for end in (".crt", ".key"))
        return Credential(certificate=certificate.read_bytes(), key=key.read_bytes())

    def _openssl(self, *arguments: str) -> None:
        command = ["openssl", *arguments]
        done = subprocess.run(command, cwd=self._directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")


def utf8_string(text: str) -> bytes:
    """DER of a UTF8String, of any length."""
    content = text.encode()
    if len(content) < 0x80:
        return bytes([0x0C, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes([0x0C, 0x80 | len(length)]) + length + content


def _extension(value: x509.ExtensionType, *, critical: bool = False) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)


def _roles_extension(value: str | bytes, *, critical: bool) -> x509.Extension[x509.ExtensionType]:
    der = utf8_string(value) if isinstance(value, str) else value
    return _extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(ROLES_OID), der), critical=critical)


def _new_key(kind: KeyType) -> _PrivateKey:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _private_pem(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _subject(*common_names: str) -> x509.Name:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are too long, which some tests want
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in common_names])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _sign(builder: x509.CertificateBuilder, key: _PrivateKey) -> bytes:
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
