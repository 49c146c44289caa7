"""What a client proves itself with, and by what it knows the server."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from jobworker.core.errors import ServerUnavailableError

Pem = str | os.PathLike[str] | bytes  # the path of a PEM file, or, as bytes, what such a file holds

_ROLE = {"ca": "CA certificate", "cert": "client certificate", "key": "client key"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PemFile:
    """The content of a PEM file; `name` is what to call it when something is wrong with it.

    `path` is where it was read, `None` for what was given as bytes.
    """

    name: str
    content: bytes = field(repr=False)  # may be a key
    path: Path | None = None

    @classmethod
    def read(cls, source: Pem, role: str) -> Self:
        """Read it. Raises `ServerUnavailableError`, because without it no connection can be made."""
        what = _ROLE[role]
        if isinstance(source, bytes):
            return cls(name=f"the {what}", content=source)
        path = Path(source)
        try:
            return cls(name=f"the {what} {path}", content=path.read_bytes(), path=path)
        except FileNotFoundError:
            raise ServerUnavailableError(
                f"there is no {what} {path}: name an existing file with --{role} (in Python {role}=), "
                "or ask who runs the server for a certificate (they make one with `jobworker pki issue`)"
            ) from None
        except OSError as error:
            raise ServerUnavailableError(f"cannot read the {what} {path}: {error.strerror}") from error

    def read_again(self) -> Self:
        """What its path holds by now; the same as before if it has none, or cannot be read."""
        if self.path is None:
            return self
        try:
            return replace(self, content=self.path.read_bytes())
        except OSError:
            return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """The CA that issued the server's certificate, the client's own certificate, and its private key."""

    ca: PemFile
    cert: PemFile
    key: PemFile

    @classmethod
    def read(cls, *, ca: Pem, cert: Pem, key: Pem) -> Self:
        """Read the three. Raises `ServerUnavailableError`."""
        return cls(ca=PemFile.read(ca, "ca"), cert=PemFile.read(cert, "cert"), key=PemFile.read(key, "key"))

    def read_again(self) -> Self:
        """What their paths hold by now."""
        return type(self)(ca=self.ca.read_again(), cert=self.cert.read_again(), key=self.key.read_again())
