"""Hosts and ports as people write them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

MAX_PORT = 65_535


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """A host (a name or an IP address, IPv6 without brackets) and a TCP port; port 0 is any that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, lowest_port: int = 1) -> Self:
        """The address that "host:port" or "[IPv6]:port" says. Raises `ValueError`."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if not colon or not host or (":" in host and not bracketed):
            raise ValueError(f"{text!r} is no address; write HOST:PORT, an IPv6 host as [HOST]:PORT")
        if not (port.isascii() and port.isdigit() and lowest_port <= int(port) <= MAX_PORT):
            raise ValueError(f"{port!r} is no port; one is a number from {lowest_port} to {MAX_PORT}")
        return cls(host=host, port=int(port))

    def with_port(self, port: int) -> Self:
        """The same host, and this port."""
        return replace(self, port=port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
