"""The job directory: the contract between the daemon, a job's supervisor and whoever comes after them.

    records       what is to be remembered, a line of JSON each, {kind: record}; the last one of a kind counts:
                  spec      what to run and how, as the daemon says it
                  started   when the program was started, before it is executed; by the supervisor, or where there is
                            no cgroup by the process that executes it, which says who it is
                  limits    the limits in force, once they have been changed
                  exit      how the job ended, by the supervisor or by the one that buries a lost job
                  compressed, archived   what has become of the output since: see `executors.packing`
                  The file is held (flock) by the supervisor as long as it has the job: the proof of life
    control       the socket on which the supervisor takes requests
    output        the raw bytes that the job wrote, each at its offset; it only grows, but may have holes, or be a
                  folder of `segments`. Made before the program is executed
    output.zst    in place of it, a while after the end: what is kept of it, compressed; until it is in an archive
    index         when each part of the output arrived, and from which stream: see `index`; it may be such a folder, too
    gaps          what is missing of the output, once something is: see `gaps`

A file takes longer to make than to write to, so there is one for all records. One that was cut off in the middle is not
seen: its line has no end. Room for the end of the job is reserved, should the disk be full by then.
Everything goes through a descriptor of the directory, so that the length of its path does not matter (a socket's path
has at most 107 bytes) and nothing changes under our feet when it is moved.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from typing import Any, Self

from jobworker.core.records import Record
from jobworker.linux import syscalls
from jobworker.runtime import protocol, segments

# Where directories are: those of jobs, those made for jobs to come, and those that are being deleted.
JOBS, STANDBY, REMOVED = "jobs", "standby", "removed"

RECORDS, CONTROL = "records", "control"
OUTPUT, INDEX, GAPS = "output", "index", "gaps"
COMPRESSED_OUTPUT = "output.zst"
SPEC, STARTED, LIMITS, EXIT = "spec", "started", "limits", "exit"  # kinds of records
COMPRESSED, ARCHIVED = "compressed", "archived"  # as above, of ended jobs

_RESERVED_BYTES = 4096  # a block; the end of a job takes some hundreds of bytes
_LISTEN_BACKLOG = 16  # a daemon and, after a restart, its successor: two connections at a time are usual


class JobDir:
    """An open job directory. Close it, or use it as a context manager."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._held = -1  # the descriptor of the records by which the lock is held, if it is by this object

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

    def read(self, kind: str) -> Record | None:
        """The last record of a kind, or `None` if none has been written. Raises `ValueError` for what is no record."""
        return self.records().get(kind)

    def records(self) -> dict[str, Record]:
        """The last record of each kind. Raises `ValueError` for what is no record."""
        try:
            fd = os.open(RECORDS, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except FileNotFoundError:
            return {}
        try:
            content = os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
        return records_of(content)

    def write(self, kind: str, record: Record, *, sync: bool) -> None:
        """Write a record that survives a kill of everybody; with `sync` a power cut, too. Raises `OSError`."""
        self.append(line_of(kind, record), sync=sync)

    def append(self, line: bytes, *, sync: bool) -> None:
        """The same with a record as it stands in the file."""
        fd = self._held if self._held >= 0 else self._open_records()
        written = 0
        try:
            while written < len(line):
                written += os.write(fd, line[written:])
            if sync:
                os.fsync(fd)
                if os.fstat(fd).st_size == written:
                    os.fsync(self.fd)
        except OSError:
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            raise
        finally:
            if fd != self._held:
                os.close(fd)

    def reserve(self) -> None:
        """Have room for one more record, which is to be written when the disk may be full. Raises `OSError`."""
        fd = self._held if self._held >= 0 else self._open_records()
        try:
            syscalls.reserve(fd, os.fstat(fd).st_size, _RESERVED_BYTES)
        finally:
            if fd != self._held:
                os.close(fd)

    def _open_records(self) -> int:
        return os.open(RECORDS, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.fd)

    # Output

    def create_output(self) -> int:
        """A descriptor to write the output with. Without O_APPEND, which splice refuses; there is one writer."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(OUTPUT, flags, 0o600, dir_fd=self.fd)

    def output_size(self) -> int | None:
        """Bytes of output so far, or `None` if the program has never been executed."""
        try:
            return segments.size_of(OUTPUT, dir_fd=self.fd)
        except FileNotFoundError:
            return None

    def open_to_write(self, name: str) -> int:
        """A descriptor to write a file with that stands beside the output, and to read it; made if need be."""
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.fd)

    def delete_output(self) -> None:
        """Delete the output: the program has not been executed, or the output has moved. Raises `FileNotFoundError`."""
        segments.delete(OUTPUT, dir_fd=self.fd)

    # Proof of life

    def lock(self) -> int | None:
        """Take the lock and return the descriptor that holds it, or `None` if somebody lives who holds it.

        The lock belongs to the open file, not to the process: it lasts until the last copy of the descriptor is
        closed, wherever that was sent.
        """
        fd = self._open_records()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        _cut_back(fd)
        return fd

    def hold(self) -> None:
        """Take the lock of a new directory for as long as this process has it open, and write records the faster."""
        self._held = self.lock() or -1

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


def line_of(kind: str, record: Record) -> bytes:
    """A record as it stands in the file."""
    return protocol.encode({kind: record}) + b"\n"


def records_of(lines: bytes) -> dict[str, Record]:
    """The last record of each kind in a file. Raises `ValueError` for what is no record."""
    found: dict[str, Any] = {}
    for line in lines.split(b"\n")[:-1]:  # behind the last end of a line is what was cut off, if anything
        found |= protocol.decode(line)
    if not all(isinstance(record, dict) for record in found.values()):
        raise ValueError(f"{RECORDS} holds something else than records")
    return found


def write_at(fd: int, data: bytes, position: int) -> None:
    """Write all of it. Raises `OSError`, after which a part of it may have been written."""
    while data:
        written = os.pwrite(fd, data, position)
        data = data[written:]
        position += written


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Have the names in a directory survive a power cut. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _cut_back(fd: int) -> None:
    """Take away a record that was cut off in the middle, so that the next one has a line of its own."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        os.ftruncate(fd, os.pread(fd, size, 0).rfind(b"\n") + 1)
