"""The port: whether it can be had."""

from __future__ import annotations

import errno
import os
import socket

from jobworker.server.errors import StartError

_HINTS = {
    errno.EADDRINUSE: "is another server running there?",
    errno.EADDRNOTAVAIL: "this machine has no such address; 0.0.0.0 and [::] stand for all that it has",
    errno.EACCES: "a port below 1024 takes root or CAP_NET_BIND_SERVICE",
}


def check_free(host: str, port: int) -> None:
    """Raise `StartError` that says why a port cannot be had; gRPC only says that."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise StartError(f"cannot listen on {host!r}: {error.strerror}") from None
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        number = error.errno or 0
        hint = f"; {_HINTS[number]}" if number in _HINTS else ""
        raise StartError(f"cannot listen on {host} port {port}: {os.strerror(number)}{hint}") from None
