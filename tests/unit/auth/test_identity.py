"""A principal is what a verified certificate says, and a certificate that says anything odd is nobody's."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from jobworker.auth.identity import principal_from_pem
from jobworker.auth.roles import Role
from jobworker.core.errors import UnauthenticatedError
from tests.support.pki import EXPIRED, Authority, OpensslAuthority


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Somebody who issues certificates."""
    return Authority()


@pytest.fixture(scope="module")
def openssl(tmp_path_factory: pytest.TempPathFactory) -> OpensslAuthority:
    """Somebody who issues certificates with the openssl program."""
    return OpensslAuthority(tmp_path_factory.mktemp("openssl"))


def test_a_certificate_becomes_a_principal(authority: Authority) -> None:
    """Name and roles are the certificate's."""
    principal = principal_from_pem(authority.client("alice", roles="user,admin").certificate)
    assert principal.name == "alice"
    assert principal.roles == {Role.ADMIN, Role.USER}


@pytest.mark.parametrize(
    "extension, roles",
    [
        ("ASN1:UTF8String:admin,user", {Role.ADMIN, Role.USER}),
        ("ASN1:UTF8String:admin", {Role.ADMIN}),
        ("ASN1:UTF8String:user", {Role.USER}),
        ("ASN1:FORMAT:UTF8,UTF8String:user", {Role.USER}),
        ("DER:0C:04:75:73:65:72", {Role.USER}),
    ],
)
def test_certificates_of_plain_openssl_work(openssl: OpensslAuthority, extension: str, roles: set[Role]) -> None:
    """An extension line as people write it for openssl gives the roles that it names."""
    principal = principal_from_pem(openssl.client("bob", extension=extension).certificate)
    assert (principal.name, principal.roles) == ("bob", roles)


@pytest.mark.parametrize(
    "extension, problem",
    [
        ("ASN1:PRINTABLESTRING:user", "tag 0x13"),
        ("ASN1:IA5STRING:user", "tag 0x16"),
        ("ASN1:OCT:user", "tag 0x04"),
        ("ASN1:EXP:0,UTF8String:user", "tag 0xa0"),
        ("ASN1:UTF8String:root", "unknown role, 'root'"),
        ("ASN1:UTF8String:", "no role in it"),
        ("ASN1:NULL", "tag 0x05"),
        ("DER:0C:04:75:73:65:72:00", "says that it has 4 bytes and has 5"),
    ],
)
def test_wrong_extensions_of_plain_openssl_are_refused(openssl: OpensslAuthority, extension: str, problem: str) -> None:
    """What people get wrong with openssl is refused and named."""
    with pytest.raises(UnauthenticatedError, match=problem):
        principal_from_pem(openssl.client("bob", extension=extension).certificate)


@pytest.mark.parametrize("serial", [1, 15, 16, 255, 256, 2**159 - 1])
def test_the_serial_number_is_the_one_that_openssl_shows(
    openssl: OpensslAuthority, tmp_path: Path, serial: int
) -> None:
    """An audit line's serial number can be looked for with openssl's spelling of it, in either case."""
    files = openssl.client("bob", serial=serial).write(tmp_path, "bob")
    command = ["openssl", "x509", "-in", files.certificate, "-noout", "-serial"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert f"serial={principal_from_pem(files.certificate.read_bytes()).serial.upper()}" == shown


@pytest.mark.parametrize("serial", [0, -1, -200])
def test_a_serial_number_that_is_not_positive_is_refused(openssl: OpensslAuthority, serial: int) -> None:
    """The refusal is ours and does not depend on what the cryptography library warns of or refuses."""
    with pytest.raises(UnauthenticatedError, match=f"serial number {serial}; it must be positive"):
        principal_from_pem(openssl.client("bob", serial=serial).certificate)


@pytest.mark.parametrize("name", ["a", "Alice Smith", "alice@example.org", "jörg", "名" * 64, "x" * 64, "a,b/c=d"])
def test_names_that_can_be_printed_are_taken_as_they_are(authority: Authority, name: str) -> None:
    """A common name of up to 64 printable characters is a name, in any script."""
    assert principal_from_pem(authority.client(name).certificate).name == name


@pytest.mark.parametrize(
    "names, problem",
    [
        ([], "has 0 common names"),
        (["alice", "bob"], "has 2 common names"),
        (["alice", "alice"], "has 2 common names"),
        ([""], "has a common name of 0 characters"),
        (["x" * 65], "has a common name of 65 characters"),
        (["alice\n"], r"cannot be printed: 'alice\\n'"),
        (["ali\0ce"], r"cannot be printed: 'ali\\x00ce'"),
        (["ali\u202ece"], r"cannot be printed: 'ali\\u202ece'"),
        (["alice\u00a0"], "cannot be printed"),
        ([" alice"], "begins or ends with a space"),
        (["alice "], "begins or ends with a space"),
        ([" "], "begins or ends with a space"),
    ],
)
def test_odd_names_are_refused(authority: Authority, names: list[str], problem: str) -> None:
    """Nobody can be somebody whose name another one's can be mistaken for in a log or a table."""
    with pytest.raises(UnauthenticatedError, match=problem):
        principal_from_pem(authority.client(*names).certificate)


def test_only_the_common_name_names(openssl: OpensslAuthority) -> None:
    """Other parts of the subject and alternative names have no say."""
    credential = openssl.client("", subject="/O=Example/OU=Ops/CN=carol/emailAddress=root@example.org")
    assert principal_from_pem(credential.certificate).name == "carol"


def test_without_the_extension_there_is_no_principal(authority: Authority) -> None:
    """A verified certificate that says nothing of roles is refused, not taken for a user's."""
    with pytest.raises(UnauthenticatedError, match=r"has no role extension \(1\.2\.840\.10070\.8\.1\)"):
        principal_from_pem(authority.client("alice", roles=None).certificate)


def test_two_extensions_are_refused(authority: Authority) -> None:
    """Neither of two contradicting role extensions is believed."""
    with pytest.raises(UnauthenticatedError, match=r"has the extension 1\.2\.840\.10070\.8\.1 twice"):
        principal_from_pem(authority.client("alice", roles="user", roles_again="admin").certificate)


def test_a_malformed_other_extension_is_refused(authority: Authority) -> None:
    """A certificate that cannot be read to its end is refused, though its role extension is right."""
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x05\x82")
    with pytest.raises(UnauthenticatedError, match="certificate is malformed"):
        principal_from_pem(authority.client("alice", also=[broken]).certificate)


@pytest.mark.parametrize(
    "pem", [b"", b"alice", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"], ids=repr
)
def test_what_is_no_certificate_is_refused(pem: bytes) -> None:
    """Whatever the transport hands over, the answer is a refusal and not a fault."""
    with pytest.raises(UnauthenticatedError, match="certificate is malformed"):
        principal_from_pem(pem)


def test_a_certificate_that_ends_is_refused_from_then_on(authority: Authority) -> None:
    """A connection that outlives its certificate gets no further call through, also while the certificate is cached."""
    start = datetime.now(UTC)
    pem = authority.client("alice", lifetime=(timedelta(hours=-1), timedelta(hours=1))).certificate
    assert principal_from_pem(pem, now=start).name == "alice"
    with pytest.raises(UnauthenticatedError, match=r"expired at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"):
        principal_from_pem(pem, now=start + timedelta(hours=1, seconds=1))


def test_the_clock_is_looked_at_without_being_told(authority: Authority) -> None:
    """A caller that passes no time gets the check as well."""
    with pytest.raises(UnauthenticatedError, match="expired"):
        principal_from_pem(authority.client("alice", lifetime=EXPIRED).certificate)
