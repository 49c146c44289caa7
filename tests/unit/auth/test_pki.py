"""The authority's certificates are right by openssl's strictest rules, and it refuses to make others."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from jobworker.auth.identity import principal_from_pem
from jobworker.auth.pki import (
    AUTHORITY_DAYS,
    CLIENT_DAYS,
    MAX_CLIENT_DAYS,
    MAX_SERVER_DAYS,
    SERVER_DAYS,
    Authority,
    Credential,
    PkiError,
    create_authority,
)
from jobworker.auth.roles import Role
from jobworker.core.errors import InvalidArgumentError
from tests.support import pki as support

_NOW = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.fixture(scope="module")
def made() -> Credential:
    """A new authority, as it is written to files."""
    return create_authority()


@pytest.fixture(scope="module")
def authority(made: Credential) -> Authority:
    """The same, ready to issue."""
    return Authority.from_pem(made.certificate, made.key)


def _verify(directory: Path, authority: bytes, certificate: bytes, *options: str, strict: bool = True) -> str:
    """What openssl says of a chain."""
    (directory / "ca.crt").write_bytes(authority)
    (directory / "leaf.crt").write_bytes(certificate)
    rules = ["-x509_strict", "-check_ss_sig"] if strict else []
    command = ["openssl", "verify", *rules, "-CAfile", "ca.crt", *options, "leaf.crt"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_openssl_accepts_the_authority(tmp_path: Path, made: Credential) -> None:
    """The authority's own certificate is right."""
    assert _verify(tmp_path, made.certificate, made.certificate) == "leaf.crt: OK\n"


@pytest.mark.parametrize(
    "options",
    [
        ("-verify_hostname", "build1.example.org"),
        ("-verify_hostname", "my_host"),
        ("-verify_hostname", "any.example.net"),
        ("-verify_ip", "10.0.0.7"),
        ("-verify_ip", "2001:db8::7"),
    ],
)
def test_openssl_accepts_a_server_under_each_of_its_hosts(
    tmp_path: Path, made: Credential, authority: Authority, options: tuple[str, ...]
) -> None:
    """A server certificate holds for every name and address that was asked for."""
    issued = authority.issue_server(["build1.example.org", "my_host", "*.example.net", "10.0.0.7", "2001:db8::7"])
    said = _verify(tmp_path, made.certificate, issued.certificate, "-purpose", "sslserver", *options)
    assert said == "leaf.crt: OK\n"


def test_openssl_accepts_a_client(tmp_path: Path, made: Credential, authority: Authority) -> None:
    """A client certificate is right, with the role extension in it, which openssl does not know."""
    issued = authority.issue_client("alice", [Role.USER])
    assert _verify(tmp_path, made.certificate, issued.certificate, "-purpose", "sslclient") == "leaf.crt: OK\n"


def test_no_certificate_is_good_for_the_other_end(tmp_path: Path, made: Credential, authority: Authority) -> None:
    """A server's certificate makes nobody a client, nor a client's a server."""
    server, client = authority.issue_server(["localhost"]), authority.issue_client("alice", [Role.ADMIN])
    assert "certificate purpose" in _verify(tmp_path, made.certificate, server.certificate, "-purpose", "sslclient")
    assert "certificate purpose" in _verify(tmp_path, made.certificate, client.certificate, "-purpose", "sslserver")


def test_the_server_reads_what_was_issued(authority: Authority) -> None:
    """Name and roles come back as the principal's."""
    principal = principal_from_pem(authority.issue_client("alice@example.org", [Role.USER, Role.ADMIN]).certificate)
    assert (principal.name, principal.roles) == ("alice@example.org", {Role.ADMIN, Role.USER})


def test_the_key_belongs_to_the_certificate(authority: Authority) -> None:
    """What is written beside a certificate is its key, ECDSA on P-256."""
    issued = authority.issue_client("alice", [Role.USER])
    key = serialization.load_pem_private_key(issued.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == x509.load_pem_x509_certificate(issued.certificate).public_key()


def test_a_key_is_never_shown(made: Credential, authority: Authority) -> None:
    """A credential or an authority that ends up in a log or a traceback does not give its key away."""
    assert "PRIVATE KEY" not in repr(made)
    assert "key=" not in repr(made) + repr(authority)


def test_every_certificate_is_another(made: Credential, authority: Authority) -> None:
    """Serial numbers, keys and names of authorities are random."""
    leaves = [authority.issue_client("alice", [Role.USER]) for _ in range(3)]
    serials = {x509.load_pem_x509_certificate(leaf.certificate).serial_number for leaf in leaves}
    assert len(serials) == 3
    assert all(serial.bit_length() > 100 for serial in serials)
    assert len({leaf.key for leaf in leaves}) == 3
    other = x509.load_pem_x509_certificate(create_authority().certificate)
    assert other.subject != x509.load_pem_x509_certificate(made.certificate).subject


def test_lifetimes() -> None:
    """Certificates are valid from a little before now, for as long as is said, to the second."""
    made = create_authority(now=_NOW)
    authority = Authority.from_pem(made.certificate, made.key)
    now = _NOW.replace(microsecond=0)
    for credential, days in [
        (made, AUTHORITY_DAYS),
        (authority.issue_server(["localhost"], now=_NOW), SERVER_DAYS),
        (authority.issue_server(["localhost"], days=MAX_SERVER_DAYS, now=_NOW), MAX_SERVER_DAYS),
        (authority.issue_client("alice", [Role.USER], now=_NOW), CLIENT_DAYS),
        (authority.issue_client("alice", [Role.USER], days=1, now=_NOW), 1),
    ]:
        certificate = x509.load_pem_x509_certificate(credential.certificate)
        assert certificate.not_valid_before_utc == now - timedelta(hours=1)
        assert certificate.not_valid_after_utc == credential.not_after == now + timedelta(days=days)


def test_no_certificate_is_valid_outside_its_authoritys_life() -> None:
    """An end that the authority does not live to see is refused, and a start before the authority's moves to it."""
    made = create_authority(now=_NOW)
    authority = Authority.from_pem(made.certificate, made.key)
    late = _NOW + timedelta(days=AUTHORITY_DAYS - 10)
    assert authority.issue_client("alice", [Role.USER], days=10, now=late).not_after == made.not_after
    with pytest.raises(PkiError, match=r"ends on 2039-12-31, before the new one would on 2040-01-01: ask for fewer"):
        authority.issue_client("alice", [Role.USER], days=11, now=late)
    early = authority.issue_client("alice", [Role.USER], now=_NOW - timedelta(minutes=10))
    start = x509.load_pem_x509_certificate(early.certificate).not_valid_before_utc
    assert start == authority.certificate.not_valid_before_utc


@pytest.mark.parametrize("days", [0, -1, MAX_CLIENT_DAYS + 1])
def test_days_have_bounds(authority: Authority, days: int) -> None:
    """More than the most, or nothing at all, is refused with the bound."""
    with pytest.raises(InvalidArgumentError, match="days: must be 1 to 365"):
        authority.issue_client("alice", [Role.USER], days=days)
    with pytest.raises(InvalidArgumentError, match="days: must be 1 to 825"):
        authority.issue_server(["localhost"], days=min(days, 0) or MAX_SERVER_DAYS + 1)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc/x", ".hidden", "-rf", "a b", "a\n", "a\0b", "ä", "x" * 65]
)
def test_names_that_are_no_file_are_refused(authority: Authority, name: str) -> None:
    """A client's name is a file's name as well, so it cannot lead anywhere else."""
    with pytest.raises(InvalidArgumentError, match=r"name: .* cannot be used"):
        authority.issue_client(name, [Role.USER])


def test_a_client_without_roles_is_refused(authority: Authority) -> None:
    """A certificate that every server would refuse is not made."""
    with pytest.raises(InvalidArgumentError, match="role: at least one is needed"):
        authority.issue_client("alice", [])


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "a b", "localhost:443", "https://localhost", "[::1]", "fe80::1%eth0", "10.0.0.300", "10.0.0.0/8"),
        *("a..b", ".a", "a.", "-a", "a-", "*", "*.*.org", "a*.org", "exämple.org", "x" * 64, "a." * 127 + "a"),
    ],
)
def test_hosts_that_are_none_are_refused(authority: Authority, host: str) -> None:
    """What no client could connect to is refused when the certificate is made, not when nothing works."""
    with pytest.raises(InvalidArgumentError, match=r"host: .* is neither a DNS name nor an IP address"):
        authority.issue_server(["localhost", host])


def test_a_server_without_hosts_is_refused(authority: Authority) -> None:
    """A server certificate without a host would be refused by every client."""
    with pytest.raises(InvalidArgumentError, match="host: at least one"):
        authority.issue_server([])


def test_a_long_host_is_kept_whole(tmp_path: Path, made: Credential, authority: Authority) -> None:
    """A host that does not fit into a common name is in the certificate all the same."""
    host = ".".join(["x" * 60] * 4)
    issued = authority.issue_server([host])
    said = _verify(tmp_path, made.certificate, issued.certificate, "-verify_hostname", host)
    assert said == "leaf.crt: OK\n"


def test_an_authority_made_with_openssl_issues_as_well(tmp_path: Path) -> None:
    """Whoever has an authority of plain openssl, which openssl itself finds too lax for strict rules, can issue."""
    openssl = support.OpensslAuthority(tmp_path)
    authority = Authority.from_pem(openssl.certificate, (tmp_path / "ca.key").read_bytes())
    issued = authority.issue_client("alice", [Role.USER], days=1)
    said = _verify(tmp_path, openssl.certificate, issued.certificate, "-purpose", "sslclient", strict=False)
    assert said == "leaf.crt: OK\n"


@pytest.mark.parametrize("key", ["rsa", "ecdsa"])
def test_an_authority_without_a_key_identifier_issues_as_well(tmp_path: Path, key: support.KeyType) -> None:
    """An older authority's certificate says less than ours and is no reason to refuse it."""
    other = support.Authority(key=key)
    authority = Authority.from_pem(other.certificate, other.key)
    issued = authority.issue_client("alice", [Role.USER], days=1)
    assert _verify(tmp_path, other.certificate, issued.certificate, strict=False) == "leaf.crt: OK\n"


def test_what_is_no_authority_cannot_issue(made: Credential, authority: Authority) -> None:
    """Wrong and mixed-up files are refused before a certificate is made that nobody accepts."""
    leaf = authority.issue_server(["localhost"])
    with pytest.raises(PkiError, match="is not an authority's"):
        Authority.from_pem(leaf.certificate, leaf.key)
    with pytest.raises(PkiError, match="do not belong together"):
        Authority.from_pem(made.certificate, leaf.key)
    with pytest.raises(PkiError, match="the authority's certificate is malformed"):
        Authority.from_pem(made.key, made.key)
    with pytest.raises(PkiError, match="is not a private key in PEM form"):
        Authority.from_pem(made.certificate, made.certificate)


def test_an_encrypted_key_is_told_apart(tmp_path: Path, made: Credential) -> None:
    """Whoever protected the authority's key with a password is told what to do."""
    (tmp_path / "ca.key").write_bytes(made.key)
    command = ["openssl", "pkey", "-in", "ca.key", "-aes256", "-passout", "pass:secret"]
    encrypted = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    with pytest.raises(PkiError, match="key is encrypted; decrypt it first"):
        Authority.from_pem(made.certificate, encrypted)


def test_a_key_of_another_kind_is_refused(tmp_path: Path, made: Credential) -> None:
    """Keys that TLS clients do not accept from an authority are refused by name."""
    other = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519"], cwd=tmp_path, capture_output=True, check=True
    )
    with pytest.raises(PkiError, match="neither ECDSA nor RSA"):
        Authority.from_pem(made.certificate, other.stdout)
