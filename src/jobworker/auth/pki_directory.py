"""The certificate authority as files in a directory: ca.crt and ca.key, and NAME.crt and NAME.key of each holder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jobworker.auth.pki import (
    CLIENT_DAYS,
    SERVER_DAYS,
    Authority,
    Credential,
    PkiError,
    check_name,
    create_authority,
)
from jobworker.auth.roles import Role

AUTHORITY = "ca"
SERVER = "server"

_WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuedFiles:
    """Where a new certificate and its key are, and when the certificate ends."""

    certificate: Path
    key: Path
    not_after: datetime


class PkiDirectory:
    """A directory with an authority in it, or where one shall be.

    Nothing is ever overwritten; each method writes all of its files or none. Keys are readable by their owner alone.
    Raises `PkiError`, `InvalidArgumentError` for what was asked for, and `OSError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def certificate_of(self, name: str) -> Path:
        """The file of a holder's certificate."""
        return self.path / f"{name}.crt"

    def key_of(self, name: str) -> Path:
        """The file of a holder's key."""
        return self.path / f"{name}.key"

    def create(self, hosts: Sequence[str]) -> IssuedFiles:
        """Make the authority and the certificate of a server with these names and addresses; returns the latter."""
        if self.certificate_of(AUTHORITY).exists() or self.key_of(AUTHORITY).exists():
            raise PkiError(
                f"{self.path} has an authority already, and nothing was changed: issue from it "
                "(jobworker pki issue, jobworker pki issue-server), or choose another directory for a new one"
            )
        authority = create_authority()
        server = Authority.from_pem(authority.certificate, authority.key).issue_server(hosts)
        return self._write({AUTHORITY: authority, SERVER: server})[SERVER]

    def issue_server(self, name: str, hosts: Sequence[str], *, days: int = SERVER_DAYS) -> IssuedFiles:
        """Issue another server certificate, as NAME.crt and NAME.key."""
        self._check_file_name(name)
        return self._write({name: self._authority().issue_server(hosts, days=days)})[name]

    def issue_client(self, name: str, roles: Collection[Role], *, days: int = CLIENT_DAYS) -> IssuedFiles:
        """Issue a client certificate, as NAME.crt and NAME.key."""
        self._check_file_name(name)
        if name == SERVER:
            raise PkiError(f"{name!r} is kept for the server's own certificate; choose another name for a client")
        return self._write({name: self._authority().issue_client(name, roles, days=days)})[name]

    def _check_file_name(self, name: str) -> None:
        check_name(name)
        if name == AUTHORITY:
            raise PkiError(f"{name!r} is the authority's own name; choose another")

    def _authority(self) -> Authority:
        try:
            certificate, key = self.certificate_of(AUTHORITY).read_bytes(), self.key_of(AUTHORITY).read_bytes()
        except FileNotFoundError as error:
            raise PkiError(f"{error.filename} is missing: make an authority first (jobworker pki init)") from None
        try:
            return Authority.from_pem(certificate, key)
        except PkiError as error:
            raise PkiError(f"cannot issue from {self.path}: {error}") from None

    def _write(self, credentials: Mapping[str, Credential]) -> dict[str, IssuedFiles]:
        # keys first: a certificate that is there has its key
        files = {self.key_of(name): (credential.key, 0o600) for name, credential in credentials.items()}
        files |= {self.certificate_of(name): (one.certificate, 0o644) for name, one in credentials.items()}
        try:
            _write_all_or_none(self.path, files)
        except FileExistsError as error:
            raise PkiError(
                f"{error.filename2} exists, and nothing was changed: choose another name, or move the old files away"
            ) from None
        return {
            name: IssuedFiles(
                certificate=self.certificate_of(name), key=self.key_of(name), not_after=credential.not_after
            )
            for name, credential in credentials.items()
        }


def _write_all_or_none(directory: Path, files: Mapping[Path, tuple[bytes, int]]) -> None:
    """Write files (content, mode) into `directory` durably, or change nothing.

    Raises `FileExistsError` if any is there, whoever made it and however lately.
    """
    with ExitStack() as undo, ExitStack() as clean_up:
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            pass  # whoever made it; what is not a directory shows below
        else:
            undo.callback(_remove_if_empty, directory)
            directory.chmod(0o700)  # whatever the umask says
            _sync(directory.parent)
        _refuse_if_others_may_write(directory)
        written: list[tuple[Path, Path]] = []
        for path, (content, mode) in files.items():
            temporary = directory / f".{path.name}.{secrets.token_hex(8)}"
            clean_up.callback(temporary.unlink, missing_ok=True)
            _write_durably(temporary, content, mode)
            written.append((temporary, path))
        for temporary, path in written:
            path.hardlink_to(temporary)  # unlike a rename, never replaces what somebody else has just put there
            undo.callback(path.unlink)
        _sync(directory)
        undo.pop_all()


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):  # somebody else has written into it meanwhile
        directory.rmdir()


def _refuse_if_others_may_write(directory: Path) -> None:
    mode = directory.stat().st_mode
    if mode & _WRITABLE_BY_OTHERS:
        raise PkiError(f"others may write to {directory} and so replace what is in it; first: chmod go-w {directory}")


def _write_durably(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet; it is its owner's alone until it is complete."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 -- pathlib cannot open with O_EXCL and a mode
        file.write(content)
        file.flush()
        os.fchmod(descriptor, mode)  # whatever the umask says
        os.fsync(descriptor)


def _sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
