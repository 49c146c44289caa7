"""Where a server is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from jobworker.core.errors import InvalidArgumentError

MAX_PORT = 65_535


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """A server's host (a name or an IP address, IPv6 without brackets) and TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address that "host:port" or "[IPv6]:port" says. Raises `InvalidArgumentError`."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if not colon or not host or (":" in host and not bracketed):
            raise InvalidArgumentError("server", f"{text!r} is no address; say HOST:PORT, an IPv6 host as [HOST]:PORT")
        if not (port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT):
            raise InvalidArgumentError("server", f"{port!r} is no port; one is a number from 1 to {MAX_PORT}")
        return cls(host=host, port=int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
