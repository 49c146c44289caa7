"""Why no connection can be made, in words that say what to do.

gRPC says "Ssl handshake failed" and no more. So once it has failed, this asks again with its own hands: a TCP
connection, the client's own certificate, a TLS handshake. Nothing of it runs while all is well.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime

from cryptography import x509

from jobworker.client.credentials import Credentials, PemFile
from jobworker.client.fit import first_certificate, misfit
from jobworker.core.address import Address

QUESTION_S = 5.0  # a server that does not shake hands within this time is as good as down

# What OpenSSL says of a certificate that it does not accept (x509_vfy.h)
_NOT_YET_VALID = 9
_EXPIRED = 10
_WRONG_NAME = frozenset({62, 64})  # of a host, of an IP address
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})


async def why_unavailable(address: Address, credentials: Credentials) -> str:
    """The reason, and what to do about it; ends within a few seconds."""
    try:
        async with asyncio.timeout(QUESTION_S):
            return (
                await _network_problem(address) or _own_problem(credentials) or await _tls_problem(address, credentials)
            )
    except TimeoutError:
        return (
            f"{address} does not answer (waited {QUESTION_S:.0f} s): check the address, the network and any firewall, "
            "and that the server runs there"
        )


async def why_refused(address: Address, credentials: Credentials) -> str | None:
    """Why a server that is there will not let these in, however long one waits; `None` if it is away, or may yet."""
    if not _expired(first_certificate(credentials.cert)):
        return None
    try:
        async with asyncio.timeout(QUESTION_S):
            return None if await _network_problem(address) else _out_of_date(credentials.cert)
    except TimeoutError:
        return None


async def _network_problem(address: Address) -> str | None:
    try:
        _reader, writer = await asyncio.open_connection(address.host, address.port)
    except socket.gaierror as error:
        return f"the host name {address.host!r} cannot be resolved ({error.strerror}): check the name"
    except ConnectionRefusedError:
        return f"nothing listens at {address}: check the address, and that the server (`jobworker serve`) runs there"
    except OSError as error:
        return f"cannot connect to {address} ({_text(error)}): check the address and the network"
    writer.transport.abort()
    return None


def _own_problem(credentials: Credentials) -> str | None:
    """What is wrong with them in themselves, without asking a server."""
    problem = misfit(ca=credentials.ca, cert=credentials.cert, key=credentials.key)
    return problem or _out_of_date(credentials.cert)


def _out_of_date(file: PemFile) -> str | None:
    certificate = first_certificate(file)
    if _expired(certificate):
        day = certificate.not_valid_after_utc.date()
        return f"{file.name} expired on {day}: ask for a new one (`jobworker pki issue` makes it)"
    if datetime.now(UTC) < certificate.not_valid_before_utc:
        return f"{file.name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: check the clock"
    return None


def _expired(certificate: x509.Certificate) -> bool:
    return datetime.now(UTC) > certificate.not_valid_after_utc


async def _tls_problem(address: Address, credentials: Credentials) -> str:
    try:
        await _shake_hands(address, _context(credentials))
    except ssl.SSLCertVerificationError as error:
        return await _server_certificate_problem(address, credentials, error)
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return f"{address} does not speak TLS, so it is no jobworker server: check the port"
        return f"{address} does not agree to TLS 1.3 ({error.reason}): check that it is a jobworker server"
    except _ClosedAfterHandshakeError:
        # gRPC gives no reason here: the server saw the certificate and hung up.
        return (
            f"{address} does not accept {credentials.cert.name}: it must be issued by the CA that the server was given "
            "as --client-ca, for use by clients"
        )
    except OSError:
        return (
            f"{address} closes the connection in the middle of the TLS handshake: check that it is a jobworker server"
        )
    return f"{address} was out of reach and answers now: try again"


async def _server_certificate_problem(
    address: Address, credentials: Credentials, error: ssl.SSLCertVerificationError
) -> str:
    match error.verify_code:
        case code if code in _WRONG_NAME:
            names = await _names_of_server(address, credentials)
            return (
                f"the certificate of {address} is for {names}, not for {address.host!r}: connect by a name that it is "
                "for, or give the server one for this name: "
                f"`jobworker pki issue-server NAME --host {address.host} ...`"
            )
        case code if code in _UNKNOWN_ISSUER:
            return (
                f"the certificate of {address} is not issued by {credentials.ca.name}: name the CA of this server, or "
                "check that this is the right server"
            )
        case _ if error.verify_code == _EXPIRED:
            return f"the certificate of {address} has expired: whoever runs the server has to renew it"
        case _ if error.verify_code == _NOT_YET_VALID:
            return f"the certificate of {address} is not valid yet: check the clocks of this machine and of the server"
        case _:
            return f"the certificate of {address} is not acceptable: {error.verify_message}"


async def _names_of_server(address: Address, credentials: Credentials) -> str:
    context = _context(credentials)
    context.check_hostname = False  # only to read the names; the CA is still verified, and nothing is sent
    certificate: dict[str, tuple[tuple[str, str], ...]] = {}
    with suppress(OSError):
        certificate = await _shake_hands(address, context)
    return ", ".join(value for _kind, value in certificate.get("subjectAltName", ())) or "no name at all"


class _ClosedAfterHandshakeError(OSError):
    pass


async def _shake_hands(address: Address, context: ssl.SSLContext) -> dict[str, tuple[tuple[str, str], ...]]:
    """The server's certificate, after a handshake that it has accepted as well."""
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=context, server_hostname=address.host
    )
    try:
        certificate = writer.get_extra_info("peercert")
        # In TLS 1.3 the handshake is over here before the server has looked at the client's certificate. If it likes
        # it, HTTP/2 begins with the server's settings.
        try:
            settings = await reader.read(1)
        except ssl.SSLError:
            raise  # an alert says more
        except OSError:
            settings = b""
        if not settings:
            raise _ClosedAfterHandshakeError
        return certificate
    finally:
        writer.transport.abort()  # not close(), which waits for a farewell that gRPC does not send


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=credentials.ca.content.decode("ascii", "replace"))
    # The ssl module reads certificates and keys from files only; this one is in memory and has no name.
    descriptor = os.memfd_create("jobworker-client", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, credentials.cert.content + b"\n" + credentials.key.content)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def _text(error: OSError) -> str:
    return error.strerror or str(error)
