"""What `pki show` knows of a certificate is what the server makes of it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobworker.auth.inspection import inspect_certificate
from jobworker.auth.pki import Authority, PkiError, create_authority
from jobworker.auth.roles import Role
from tests.support import pki as support

_P256 = ("-pkeyopt", "ec_paramgen_curve:P-256")
_NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Ours."""
    made = create_authority(now=_NOW)
    return Authority.from_pem(made.certificate, made.key)


@pytest.fixture(scope="module")
def other() -> support.Authority:
    """Somebody else's, which issues whatever is asked for."""
    return support.Authority("other CA")


def _self_signed(directory: Path, *extensions: str, key: Sequence[str] = ("ec", *_P256)) -> bytes:
    """A certificate for the next two days, with these lines of an openssl configuration and no others."""
    config = "\n".join(["[req]", "distinguished_name = req", "[extensions]", *extensions, ""])
    (directory / "openssl.cnf").write_text(config)
    command = ["openssl", "req", "-x509", "-newkey", *key, "-noenc", "-keyout", "key", "-subj", "/CN=x", "-days", "2"]
    command += ["-config", "openssl.cnf", "-extensions", "extensions"]
    return subprocess.run(command, cwd=directory, capture_output=True, check=True).stdout


def test_an_authority() -> None:
    """An authority is one, for ten years."""
    info = inspect_certificate(create_authority(now=_NOW).certificate, now=_NOW)
    assert (info.uses, info.roles, info.hosts, info.warnings) == (("authority",), None, (), ())
    assert info.subject == info.issuer == f"CN={info.name}"
    assert info.not_after - info.not_before == timedelta(days=3650, hours=1)


def test_a_server(authority: Authority) -> None:
    """A server's certificate shows the hosts that it is good for."""
    issued = authority.issue_server(["build1.example.org", "10.0.0.7", "2001:db8::7"], now=_NOW)
    info = inspect_certificate(issued.certificate, now=_NOW)
    assert info.uses == ("server",)
    assert info.hosts == ("build1.example.org", "10.0.0.7", "2001:db8::7")
    assert (info.name, info.roles, info.warnings) == ("build1.example.org", None, ())
    assert (info.key, info.not_after) == ("ECDSA P-256", issued.not_after)


def test_a_client(authority: Authority) -> None:
    """A client's certificate shows who its holder is and the roles."""
    info = inspect_certificate(authority.issue_client("alice", [Role.USER, Role.ADMIN], now=_NOW).certificate, now=_NOW)
    assert (info.uses, info.name, info.roles, info.warnings) == (("client",), "alice", ("admin", "user"), ())
    assert info.issuer == authority.certificate.subject.rfc4514_string()


def test_fingerprint_and_serial_are_those_of_openssl(tmp_path: Path, authority: Authority) -> None:
    """What people compare is what openssl shows them."""
    pem = authority.issue_client("alice", [Role.USER], now=_NOW).certificate
    (tmp_path / "alice.crt").write_bytes(pem)
    command = ["openssl", "x509", "-in", tmp_path / "alice.crt", "-noout", "-serial", "-fingerprint", "-sha256"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.lower().replace(":", "")
    info = inspect_certificate(pem, now=_NOW)
    assert shown == f"serial={info.serial}\nsha256 fingerprint={info.sha256}\n"


@pytest.mark.parametrize(
    "left, warnings",
    [
        (timedelta(days=30), ()),
        (timedelta(days=29, hours=23), ("it expires in 30 days",)),
        (timedelta(days=2), ("it expires in 2 days",)),
        (timedelta(days=1, hours=23), ("it expires in 2 days",)),
        (timedelta(days=1, hours=11), ("it expires within two days",)),
        (timedelta(0), ("it expires within two days",)),
        (timedelta(seconds=-1), ("it has expired: issue a new one",)),
        (timedelta(days=90, hours=1, seconds=1), ("it is not valid yet",)),
    ],
)
def test_warnings_about_dates(authority: Authority, left: timedelta, warnings: tuple[str, ...]) -> None:
    """Whoever looks learns of an end before it comes, and of one that has come."""
    issued = authority.issue_client("alice", [Role.USER], days=90, now=_NOW + timedelta(hours=2))
    assert inspect_certificate(issued.certificate, now=issued.not_after - left).warnings == warnings


def test_what_the_server_will_refuse_is_said(other: support.Authority) -> None:
    """A client certificate that is no good shows no roles, and the server's own reason."""
    info = inspect_certificate(other.client("alice", roles="user,root").certificate, now=_NOW)
    assert info.roles is None
    assert "the server will refuse it: the client certificate's role extension" in info.warnings[0]
    assert "names an unknown role, 'root'" in info.warnings[0]
    nameless = inspect_certificate(other.client().certificate, now=_NOW)
    assert nameless.name is None
    assert "has 0 common names" in nameless.warnings[0]


def test_an_expired_client_still_shows_its_roles(other: support.Authority) -> None:
    """The end of a certificate does not hide what it was."""
    info = inspect_certificate(other.client("alice", lifetime=support.EXPIRED).certificate, now=_NOW)
    assert (info.roles, info.warnings) == (("user",), ("it has expired: issue a new one",))


@pytest.mark.parametrize(
    "extensions, uses",
    [
        ([], ("server", "client")),
        (["extendedKeyUsage = anyExtendedKeyUsage"], ("server", "client")),
        (["extendedKeyUsage = serverAuth, clientAuth"], ("server", "client")),
        (["extendedKeyUsage = codeSigning"], ()),
        (["basicConstraints = critical, CA:FALSE", "extendedKeyUsage = clientAuth"], ("client",)),
        (["basicConstraints = critical, CA:TRUE", "extendedKeyUsage = clientAuth"], ("authority",)),
    ],
)
def test_uses_are_those_of_tls(tmp_path: Path, extensions: list[str], uses: tuple[str, ...]) -> None:
    """A certificate that says nothing of its purpose is good for both ends, as TLS has it."""
    assert inspect_certificate(_self_signed(tmp_path, *extensions), now=_NOW).uses == uses


def test_a_certificate_for_both_ends_is_judged_as_a_client_only_if_it_has_roles(tmp_path: Path) -> None:
    """A server's certificate that could be a client's as well is no reason for a warning about roles."""
    plain = inspect_certificate(_self_signed(tmp_path), now=_NOW)
    assert (plain.roles, [one for one in plain.warnings if "role" in one]) == (None, [])
    with_roles = inspect_certificate(_self_signed(tmp_path, f"{support.ROLES_OID} = ASN1:UTF8String:user"), now=_NOW)
    assert with_roles.roles == ("user",)


def test_a_server_without_hosts_is_told_so(tmp_path: Path) -> None:
    """A certificate with its host in the common name alone, as of old, works nowhere any more."""
    info = inspect_certificate(_self_signed(tmp_path, "extendedKeyUsage = serverAuth"), now=_NOW)
    assert info.warnings[0] == "it names no host (subjectAltName), so every client will refuse it"


@pytest.mark.parametrize(
    "key, shown",
    [
        (["rsa:2048"], "RSA 2048"),
        (["ec", "-pkeyopt", "ec_paramgen_curve:P-384"], "ECDSA P-384"),
        (["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "ECDSA secp256k1"),
        (["ed25519"], "Ed25519"),
    ],
)
def test_kinds_of_keys(tmp_path: Path, key: list[str], shown: str) -> None:
    """The kind of key is named as people know it, also one that no server of ours takes."""
    assert inspect_certificate(_self_signed(tmp_path, key=key), now=_NOW).key == shown


def test_a_file_with_several_certificates_is_told_so(authority: Authority) -> None:
    """A chain shows its leaf, and says that there is more."""
    leaf = authority.issue_server(["localhost"], now=_NOW).certificate
    info = inspect_certificate(leaf * 2, now=_NOW)
    assert info.warnings == ("the file has 2 certificates in it; this is the first",)


@pytest.mark.parametrize(
    "pem, problem",
    [
        (b"", "has no certificate in PEM form"),
        (b"\x30\x82\x01\x00", "has no certificate in PEM form"),
        (b"-----BEGIN PRIVATE KEY-----\n", "is a private key"),
        (b"-----BEGIN EC PRIVATE KEY-----\n", "is a private key"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "has a certificate in it that is malformed",
        ),
    ],
)
def test_what_is_no_certificate(pem: bytes, problem: str) -> None:
    """Another file is refused, and a key mistaken for a certificate is called one."""
    with pytest.raises(PkiError, match=problem):
        inspect_certificate(pem, now=_NOW)
