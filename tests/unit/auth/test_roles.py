"""The role extension is read as strict DER, and nothing else."""

from __future__ import annotations

import pytest
from cryptography.hazmat import asn1

from jobworker.auth.roles import Role, decode_roles, decode_utf8_string, encode_roles
from jobworker.core.errors import UnauthenticatedError
from tests.support.pki import utf8_string


@pytest.mark.parametrize(
    "roles",
    [{Role.USER}, {Role.ADMIN}, {Role.ADMIN, Role.USER}],
    ids=lambda roles: "+".join(sorted(roles)),
)
def test_what_is_encoded_is_decoded(roles: set[Role]) -> None:
    """Every set of roles comes back from its own encoding."""
    assert decode_roles(encode_roles(roles)) == roles


def test_the_encoding_is_the_one_of_openssl() -> None:
    """The bytes are those of openssl's ASN1:UTF8String:admin,user."""
    assert encode_roles([Role.USER, Role.ADMIN, Role.USER]) == b"\x0c\x0aadmin,user"


def test_no_roles_are_not_encoded() -> None:
    """A certificate without a role would be refused by every server, so none is made."""
    with pytest.raises(ValueError, match="0 bytes of roles"):
        encode_roles([])


@pytest.mark.parametrize(
    "der, problem",
    [
        pytest.param(b"", "is empty", id="nothing"),
        pytest.param(b"\x0c", "has no length", id="tag alone"),
        pytest.param(b"\x13\x04user", "has the ASN.1 tag 0x13", id="PrintableString"),
        pytest.param(b"\x16\x04user", "has the ASN.1 tag 0x16", id="IA5String"),
        pytest.param(b"\x04\x04user", "has the ASN.1 tag 0x04", id="OctetString"),
        pytest.param(b"\x30\x06\x0c\x04user", "has the ASN.1 tag 0x30", id="sequence of one"),
        pytest.param(b"\x2c\x06\x0c\x04user", "has the ASN.1 tag 0x2c", id="constructed string"),
        pytest.param(b"\x8c\x04user", "has the ASN.1 tag 0x8c", id="context tag"),
        pytest.param(b"user", "has the ASN.1 tag 0x75", id="bare text"),
        pytest.param(b"\x0c\x05user", "says that it has 5 bytes and has 4", id="cut off"),
        pytest.param(b"\x0c\x04user\x00", "says that it has 4 bytes and has 5", id="trailing byte"),
        pytest.param(b"\x0c\x04user\x0c\x05admin", "says that it has 4 bytes and has 11", id="second string"),
        pytest.param(b"\x0c\x80user\x00\x00", "has a length that is not DER", id="indefinite length"),
        pytest.param(b"\x0c\x81\x04user", "has a length that is not DER", id="long form of a short length"),
        pytest.param(b"\x0c\x82\x00\x80" + b"x" * 128, "has a length that is not DER", id="leading zero in the length"),
        pytest.param(b"\x0c\x84\x01", "has a length that is not DER", id="cut off in the length"),
        pytest.param(b"\x0c\xff", "has a length that is not DER", id="reserved length"),
        pytest.param(b"\x0c\x81\xffuser", "says that it has 255 bytes and has 4", id="long and cut off"),
        pytest.param(b"\x0c\x04us\xffr", "is not valid UTF-8", id="invalid UTF-8"),
        pytest.param(b"\x0c\x05us\xc1\xa5r", "is not valid UTF-8", id="overlong UTF-8"),
        pytest.param(b"\x0c\x00", "has no role in it", id="empty text"),
        pytest.param(utf8_string("root"), "unknown role, 'root'", id="unknown role"),
        pytest.param(utf8_string("user,root"), "unknown role, 'root'", id="unknown beside a known role"),
        pytest.param(utf8_string("Admin"), "unknown role, 'Admin'", id="upper case"),
        pytest.param(utf8_string("user,"), "unknown role, ''", id="trailing comma"),
        pytest.param(utf8_string(",user"), "unknown role, ''", id="leading comma"),
        pytest.param(utf8_string("admin, user"), "unknown role, ' user'", id="space"),
        pytest.param(utf8_string("user\n"), r"unknown role, 'user\\n'", id="newline"),
        pytest.param(utf8_string("user\0"), r"unknown role, 'user\\x00'", id="NUL"),
        pytest.param(utf8_string("\ufeffuser"), r"unknown role, '\\ufeffuser'", id="byte order mark"),
        pytest.param(utf8_string("user;admin"), "unknown role, 'user;admin'", id="semicolon"),
        pytest.param(utf8_string("user,admin,user"), "names the role 'user' twice", id="twice"),
    ],
)
def test_anything_else_is_refused(der: bytes, problem: str) -> None:
    """What is not exactly one UTF8String of known roles is refused, with a text that says why."""
    with pytest.raises(UnauthenticatedError, match=rf"role extension \(1\.2\.840\.10070\.8\.1\) .*{problem}"):
        decode_roles(der)


@pytest.mark.parametrize("size", [127, 128, 255, 256, 65_535, 65_536])
def test_a_string_of_any_size_is_read_to_its_end(size: int) -> None:
    """The length is understood in every form: one that is right is no reason to refuse, whatever is in the string."""
    with pytest.raises(UnauthenticatedError, match=r"names an unknown role, 'x{40}';"):
        decode_roles(utf8_string("x" * size))


@pytest.mark.parametrize("text", ["", "user", "admin,user", "é", "x" * 127, "x" * 128, "x" * 256])
def test_another_decoder_agrees(text: str) -> None:
    """With any one byte replaced, added or missing, the string is read as the cryptography library reads it."""
    der = utf8_string(text)
    cases = [der[:at] + der[at + 1 :] for at in range(len(der))]
    for at in range(min(len(der), 6) + 1):
        cases += [der[:at] + bytes([byte]) + der[at + skipped :] for byte in range(256) for skipped in (0, 1)]
    for case in cases:
        try:
            expected = asn1.decode_der(str, case)
        except ValueError:
            with pytest.raises(UnauthenticatedError):
                decode_utf8_string(case)
        else:
            assert decode_utf8_string(case) == expected, case.hex()


def test_the_text_for_the_client_stays_short() -> None:
    """A huge role does not make a huge error, which would not fit into a gRPC trailer."""
    with pytest.raises(UnauthenticatedError) as refused:
        decode_roles(utf8_string("\0" * 100_000))
    assert len(str(refused.value)) < 400
