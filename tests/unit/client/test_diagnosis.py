"""A connection that cannot be made fails with the reason and what to do about it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from jobworker.client import AsyncClient, Client
from jobworker.client.credentials import Pem
from jobworker.core.errors import ServerUnavailableError
from tests.support.pki import EXPIRED, NOT_YET_VALID, Authority, Credential

OURS = Authority()
OTHER = Authority("another CA")
ALICE = OURS.client("alice")


@asynccontextmanager
async def server_with(certificate: Credential) -> AsyncGenerator[int]:
    """A gRPC server without services on a port of 127.0.0.1."""
    server = grpc.aio.server()
    credentials = grpc.ssl_server_credentials(
        [(certificate.key, certificate.certificate)], OURS.certificate, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def reason(
    server: str, *, ca: Pem = OURS.certificate, cert: Pem = ALICE.certificate, key: Pem = ALICE.key
) -> str:
    """What a first call fails with."""
    async with AsyncClient(server, ca=ca, cert=cert, key=key) as client:
        with pytest.raises(ServerUnavailableError) as raised:
            await client.server_info()
    return str(raised.value)


@pytest.mark.parametrize(
    "certificate, expected",
    [
        (
            OURS.server(lifetime=EXPIRED),
            "the certificate of ADDRESS has expired: whoever runs the server has to renew it",
        ),
        (OURS.server(lifetime=NOT_YET_VALID), "the certificate of ADDRESS is not valid yet: check the clocks"),
        (OTHER.server(), "the certificate of ADDRESS is not issued by the CA certificate"),
        (
            OURS.server("build1.example.org", "10.0.0.7"),
            "the certificate of ADDRESS is for build1.example.org, 10.0.0.7, not for '127.0.0.1': connect by a name",
        ),
    ],
    ids=["expired", "not yet valid", "unknown CA", "wrong name"],
)
async def test_certificate_of_the_server(certificate: Credential, expected: str) -> None:
    """What is wrong with the server's certificate is said as it is, with the names that it has."""
    async with server_with(certificate) as port:
        address = f"127.0.0.1:{port}"
        assert expected.replace("ADDRESS", address) in await reason(address)


@pytest.mark.parametrize(
    "client, expected",
    [
        (
            OURS.client("alice", lifetime=EXPIRED),
            r"the client certificate expired on \d{4}-\d\d-\d\d: ask for a new one",
        ),
        (OURS.client("alice", lifetime=NOT_YET_VALID), "the client certificate is not valid before .* check the clock"),
        (OTHER.client("alice"), "does not accept the client certificate: it must be issued by the CA"),
        (
            Credential(certificate=ALICE.certificate, key=OURS.client("bob").key),
            "the client key does not belong to the client certificate",
        ),
        (Credential(certificate=b"rubbish", key=ALICE.key), "the client certificate holds no certificate in PEM form"),
        (Credential(certificate=ALICE.certificate, key=b"rubbish"), "the client key holds no private key in PEM form"),
    ],
    ids=["expired", "not yet valid", "unknown CA", "another's key", "no certificate", "no key"],
)
async def test_certificate_of_the_client(client: Credential, expected: str) -> None:
    """What is wrong with the caller's own files is said, which gRPC's servers never do."""
    async with server_with(OURS.server()) as port:
        text = await reason(f"127.0.0.1:{port}", cert=client.certificate, key=client.key)
    assert re.search(expected, text), text


async def test_a_key_with_a_password() -> None:
    """An encrypted key cannot be used, and that is said."""
    key = load_pem_private_key(ALICE.key, password=None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    async with server_with(OURS.server()) as port:
        assert "the client key is encrypted" in await reason(f"127.0.0.1:{port}", key=key)


async def test_no_ca_in_the_file() -> None:
    """A CA file without a certificate is named, by its path if it has one."""
    async with server_with(OURS.server()) as port:
        assert "the CA certificate holds no certificate" in await reason(f"127.0.0.1:{port}", ca=b"rubbish")


async def test_nobody_listens() -> None:
    """A port that nobody listens on is said to be one."""
    async with server_with(OURS.server()) as port:
        pass
    assert (await reason(f"127.0.0.1:{port}")).startswith(f"nothing listens at 127.0.0.1:{port}: check the address")


async def test_no_such_host() -> None:
    """A name that cannot be resolved is said to be one."""
    assert "the host name 'nowhere.invalid' cannot be resolved" in await reason("nowhere.invalid:8443")


@pytest.mark.parametrize(
    "greeting, expected",
    [(b"SSH-2.0-OpenSSH\r\n", "does not speak TLS"), (b"", "closes the connection in the middle of the TLS handshake")],
)
async def test_something_else_listens(greeting: bytes, expected: str) -> None:
    """A port of another service is said to be none of ours."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        text = await reason(f"127.0.0.1:{other.sockets[0].getsockname()[1]}")
    assert expected in text


def test_files_are_looked_at_first(tmp_path: Path) -> None:
    """A missing file is an error of the constructor, before there is a connection or a thread."""
    with pytest.raises(ServerUnavailableError, match="there is no CA certificate"):
        Client("localhost:1", ca=tmp_path / "ca.crt", cert=b"", key=b"")
