"""The job directory: the contract between the daemon, a job's supervisor and whoever comes after them.

    spec.json     what to run and how, written by the daemon before the supervisor is asked for
    lock          held (flock) from before the supervisor exists until it has gone: the proof of life
    control       the socket on which the supervisor takes requests
    started.json  written by the first process of the job when it is about to execute the program
    limits.json   the limits in force, once they have been changed
    output        the raw bytes that the job wrote; it only grows. Made before the program is executed
    exit.json     how the job ended; written once, by the supervisor or by the one that buries a lost job

A record appears whole or not at all: it is written under a temporary name and renamed. exit.json.new is there from
the start, so that a full disk has room for the end.
Everything goes through a descriptor of the directory, so that the length of its path does not matter (a socket's path
has at most 107 bytes) and nothing changes under our feet when it is moved.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from contextlib import suppress
from typing import Any, Self, cast

Record = dict[str, Any]

SPEC, LOCK, CONTROL, STARTED = "spec.json", "lock", "control", "started.json"
LIMITS, OUTPUT, EXIT = "limits.json", "output", "exit.json"

_RESERVED_BYTES = 4096  # a block; the end of a job takes some hundreds of bytes
_LISTEN_BACKLOG = 16  # a daemon and, after a restart, its successor: two connections at a time are usual


class JobDir:
    """An open job directory. Close it, or use it as a context manager."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> JobDir:
        """Make a new directory that nobody else may enter. Raises `FileExistsError`."""
        os.mkdir(path, 0o700)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> JobDir:
        """Open a directory that is there. Raises `FileNotFoundError`."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Records

    def read(self, name: str) -> Record | None:
        """A record, or `None` if it has not been written. Raises `ValueError` if it is not one."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        try:
            record = json.loads(os.read(fd, os.fstat(fd).st_size))  # whole: a regular file that nobody changes
        finally:
            os.close(fd)
        if not isinstance(record, dict):
            raise ValueError(f"{name} holds no record")
        return cast("Record", record)

    def write(self, name: str, record: Record, *, sync: bool, sync_content: bool = False) -> None:
        """Write a record that survives a kill of everybody; with `sync` a power cut, too.

        With `sync_content` alone it may be missing after a power cut, but it is not empty.
        """
        temporary = f"{name}.new"
        fd = self._open_temporary(temporary)
        try:
            content = json.dumps(record, separators=(",", ":")).encode()
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.ftruncate(fd, len(content))  # not before: it would give back what was reserved
            if sync or sync_content:
                os.fsync(fd)  # else a rename that outlives a power cut may name an empty file
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        if sync:
            os.fsync(self.fd)

    def reserve(self, name: str) -> None:
        """Have room for a record that is to be written when the disk may be full. Raises `OSError`."""
        fd = self._open_temporary(f"{name}.new")
        try:
            os.posix_fallocate(fd, 0, _RESERVED_BYTES)
        finally:
            os.close(fd)

    def _open_temporary(self, name: str) -> int:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.fd)

    # Output

    def create_output(self) -> int:
        """A descriptor to write the output with. Without O_APPEND, which splice refuses; there is one writer."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(OUTPUT, flags, 0o600, dir_fd=self.fd)

    def open_output(self) -> int:
        """A descriptor to read the output with. Raises `FileNotFoundError`."""
        return os.open(OUTPUT, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)

    def output_size(self) -> int | None:
        """Bytes of output so far, or `None` if the program has never been executed."""
        try:
            return os.stat(OUTPUT, dir_fd=self.fd).st_size
        except FileNotFoundError:
            return None

    def delete_output(self) -> None:
        """Take back `create_output`: the program has not been executed."""
        os.unlink(OUTPUT, dir_fd=self.fd)

    # Proof of life

    def lock(self) -> int | None:
        """Take the lock and return the descriptor that holds it, or `None` if somebody lives who holds it.

        The lock belongs to the open file, not to the process: it lasts until the last copy of the descriptor is
        closed, wherever that was sent.
        """
        fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    # Control socket

    def listen(self) -> socket.socket:
        """Bind the control socket, in place of one that a dead supervisor has left, and listen."""
        with suppress(FileNotFoundError):
            os.unlink(CONTROL, dir_fd=self.fd)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            os.fchmod(listener.fileno(), 0o600)  # the mode that bind gives it, whatever the umask
            listener.bind(self._control_path)  # in a directory of mode 0700, and peers are checked by credentials
            listener.listen(_LISTEN_BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener

    def connect(self) -> socket.socket:
        """A non-blocking connection to the control socket.

        Raises `ConnectionRefusedError` if its supervisor has gone, and `BlockingIOError` if it has not answered the
        connections before.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            connection.connect(self._control_path)
        except OSError:
            connection.close()
            raise
        return connection

    @property
    def _control_path(self) -> str:
        return f"/proc/self/fd/{self.fd}/{CONTROL}"
