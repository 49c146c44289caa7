"""TLS 1.3 only, for both types of key, and certificates that change without a restart."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from jobworker.server.app import Api
from jobworker.server.audit import AuditLog
from jobworker.server.certificates import CertificateFiles, read_certificates
from jobworker.server.limits import RoleLimits
from jobworker.worker import local_worker
from tests.integration.api.conftest import LIMIT
from tests.support.pki import EXPIRED, Authority, Credential, CredentialFiles, KeyType
from tests.support.server import Server, running_server


def openssl_s_client(server: Server, client: CredentialFiles, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A handshake by openssl's own client."""
    command = ["openssl", "s_client", "-connect", server.address, "-CAfile", str(server.ca), "-verify_return_error"]
    certificate = ["-cert", str(client.certificate), "-key", str(client.key)]
    return subprocess.run(
        [*command, *certificate, *arguments], input="", capture_output=True, text=True, check=False, timeout=LIMIT
    )


@pytest.mark.parametrize("key", ["ecdsa", "rsa"])
def test_tls_1_2_is_refused_and_1_3_is_not(tmp_path: Path, key: KeyType) -> None:
    """A client that offers at most TLS 1.2 gets no connection, whatever its ciphers; with 1.3 it gets one."""
    authority = Authority()
    with running_server(tmp_path, authority=authority, certificate=authority.server(key=key)) as server:
        client = server.client("alice").write(tmp_path, "alice")
        for ciphers in ("ALL", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"):
            old = openssl_s_client(server, client, "-tls1_2", "-cipher", ciphers)
            assert "Cipher is (NONE)" in old.stdout
        assert server.log.count("NO_SHARED_CIPHER") == 3
        new = openssl_s_client(server, client, "-tls1_3")
        assert "New, TLSv1.3, Cipher is TLS_AES" in new.stdout
        assert "Verify return code: 0 (ok)" in new.stdout


def http2_call(connection: ssl.SSLSocket, path: str) -> bytes:
    """Begin a gRPC call by hand and give what comes back, up to the end of the call's stream."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload

    def header(name: str, value: str) -> bytes:  # literal, not indexed, not Huffman-coded (RFC 7541, 6.2.2)
        return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))

    headers = {":method": "POST", ":scheme": "https", ":authority": "localhost", ":path": path}
    headers |= {"content-type": "application/grpc", "te": "trailers"}
    block = b"".join(header(name, value) for name, value in headers.items())
    settings, end_headers, end_stream = 4, 0x4, 0x1
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, 0, 0, b""))
    connection.sendall(frame(1, end_headers, 1, block) + frame(0, end_stream, 1, bytes(5)))
    received = connection.makefile("rb")
    answer = b""
    while True:
        length, kind, flags = received.read(3), received.read(1)[0], received.read(1)[0]
        stream = int.from_bytes(received.read(4))
        payload = received.read(int.from_bytes(length))
        if stream == 1:
            answer += payload
            if kind == 1 and flags & end_stream:
                return answer


async def test_a_call_over_tls_1_2_is_refused_even_if_a_connection_came_about(tmp_path: Path) -> None:
    """The second measure holds alone: a server whose cipher suites let TLS 1.2 in answers no call over it."""
    authority = Authority()
    written = authority.server().write(tmp_path, "server")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    files = CertificateFiles(certificate=written.certificate, key=written.key, client_ca=tmp_path / "ca.crt")
    api = Api(
        files=files,
        certificates=read_certificates(files),
        audit=AuditLog.to("off"),
        max_request_bytes=1000,
        max_followers_per_user=1,
    )
    client = authority.client("alice").write(tmp_path, "alice")
    async with local_worker(tmp_path / "state") as worker, asyncio.TaskGroup() as group:
        port = api.listen("127.0.0.1", 0)
        await api.start(worker, limits=RoleLimits(), version="0")
        group.create_task(api.ended())
        answers = {
            version.name: await asyncio.to_thread(info_by_hand, port, version, files.client_ca, client)
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        }
        await api.end(grace=timedelta(0), hurry=asyncio.Event())
    assert b"grpc-status\x0216" in answers["TLSv1_2"]  # UNAUTHENTICATED
    assert b"TLS 1.3 is required, and this connection has TLSv1.2" in answers["TLSv1_2"]
    assert b"grpc-status\x010" in answers["TLSv1_3"]


def info_by_hand(port: int, version: ssl.TLSVersion, ca: Path, client: CredentialFiles) -> bytes:
    """Ask what the server is over one version of TLS."""
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(client.certificate, client.key)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return http2_call(connection, "/jobworker.v1.JobService/GetServerInfo")


def seen_certificate(server: Server, client: Credential) -> bytes:
    """The certificate, DER, that a new connection is shown; none if the server does not accept the client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    files = client.write(server.directory, "asking")
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((server.host, server.port), timeout=LIMIT) as plain,
        context.wrap_socket(plain) as connection,
    ):
        # With TLS 1.3, a refusal of the client's certificate comes after the handshake, in place of HTTP/2's settings.
        try:
            accepted = connection.recv(1) != b""
        except (ssl.SSLError, ConnectionResetError):
            accepted = False
        return (connection.getpeercert(binary_form=True) or b"") if accepted else b""


@pytest.fixture
def own_server(tmp_path: Path) -> Generator[Server]:
    """A server whose certificates a test may change."""
    with running_server(tmp_path) as server:
        yield server


def der(credential: Credential) -> bytes:
    """The certificate in binary form."""
    return ssl.PEM_cert_to_DER_cert(credential.certificate.decode())


def test_a_new_certificate_is_used_at_the_next_connection(own_server: Server) -> None:
    """Renewing the certificate needs no restart, and an open connection does not notice."""
    alice = own_server.client("alice")
    with own_server.channel(alice) as before:
        JobServiceStub(before).GetServerInfo(pb.GetServerInfoRequest(), timeout=LIMIT)
        renewed = own_server.authority.server()
        assert seen_certificate(own_server, alice) not in (b"", der(renewed))
        renewed.write(own_server.directory, "server")
        assert seen_certificate(own_server, alice) == der(renewed)
        JobServiceStub(before).GetServerInfo(pb.GetServerInfoRequest(), timeout=LIMIT)
    assert own_server.log.count("certificates reloaded") == 1


def test_a_file_that_is_replaced_is_noticed(own_server: Server) -> None:
    """A rename over the file, which is how careful people renew, is a change as well; and so is a CA added to it."""
    other = Authority("another CA")
    stranger = other.client("zoe")
    assert seen_certificate(own_server, stranger) == b""
    both = own_server.directory / "both"
    both.write_bytes(own_server.authority.certificate + other.certificate)
    both.rename(own_server.ca)
    assert seen_certificate(own_server, stranger) != b""
    assert seen_certificate(own_server, own_server.client("alice")) != b""


@pytest.mark.parametrize(
    "broken, problem",
    [
        ("not its key", "is not the one of the certificate in"),
        ("no certificate", "is malformed; it must be PEM"),
        ("expired", "expired at"),
        ("other type of key", "a key of type RSA instead of ECDSA needs a restart"),
        ("no CA", "is not one certificate or more in PEM form"),
    ],
)
def test_what_cannot_be_used_leaves_what_there_was(own_server: Server, broken: str, problem: str) -> None:
    """A broken renewal is logged once and cuts nobody off; a right one after it is taken."""
    alice, authority, directory = own_server.client("alice"), own_server.authority, own_server.directory
    before = seen_certificate(own_server, alice)
    match broken:
        case "not its key":
            own_server.files.key.write_bytes(authority.server().key)
        case "no certificate":
            own_server.files.certificate.write_text("-----BEGIN CERTIFICATE-----\n?\n")
        case "expired":
            authority.server(lifetime=EXPIRED).write(directory, "server")
        case "other type of key":
            authority.server(key="rsa").write(directory, "server")
        case _:
            own_server.ca.write_text("nothing")
    for _ in range(3):
        assert seen_certificate(own_server, alice) == before
    assert own_server.log.count("keeping the certificates in use: ") == 1
    assert problem in own_server.log
    own_server.ca.write_bytes(authority.certificate)
    right = authority.server()
    right.write(directory, "server")
    assert seen_certificate(own_server, alice) == der(right)


def test_a_file_that_is_missing_for_a_moment_changes_nothing(own_server: Server) -> None:
    """Between the removal of a file and its return, connections are made as before."""
    alice = own_server.client("alice")
    before = seen_certificate(own_server, alice)
    own_server.files.certificate.unlink()
    assert seen_certificate(own_server, alice) == before
    returned = own_server.authority.server()
    returned.write(own_server.directory, "server")
    assert seen_certificate(own_server, alice) == der(returned)
