"""Bytes over TLS 1.3 and nothing else; as a program (`python -m benchmarks.tls DIR SIZE WRITE`) the side that sends."""

from __future__ import annotations

import socket
import ssl
import sys
import time
from pathlib import Path

from benchmarks.server import Certificates

_BUFFER_BYTES = 256 * 1024
_PATIENCE = 60.0  # seconds


def receive(port: int, certificates: Certificates, size: int) -> float:
    """Receive so many bytes, and return the seconds from the first to the last."""
    context = ssl.create_default_context(cafile=certificates.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    buffer = bytearray(_BUFFER_BYTES)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        received = connection.recv_into(buffer)
        began = time.perf_counter()
        while received < size:
            received += connection.recv_into(buffer)
        return time.perf_counter() - began


def send(certificates: Certificates, size: int, write_bytes: int) -> None:
    """Say on which port, and send so many bytes, so many at a time, to the first one who connects."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_PATIENCE)
        print(listener.getsockname()[1], flush=True)
        plain, _ = listener.accept()
    with context.wrap_socket(plain, server_side=True) as connection:
        for _ in range(size // write_bytes):
            connection.sendall(bytes(write_bytes))


if __name__ == "__main__":
    send(Certificates(directory=Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
