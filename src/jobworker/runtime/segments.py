"""A file that grows at its end and can give back its beginning, in one of two forms.

It is one file, in which holes are made, or, where the file system cannot make them, a folder of segments: files named
by the offset at which they begin, of which the oldest are deleted. Either way a byte stands at its own offset.
"""

from __future__ import annotations

import os
import stat
import sys
from bisect import bisect_right

from jobworker.linux import syscalls


class HoledFile:
    """One file, which `fd` is open to write to; what it gives back are multiples of `block` bytes."""

    def __init__(self, fd: int, block: int) -> None:
        self._freed = 0
        self.fd = fd
        self.block = block

    def at(self, offset: int) -> int:  # noqa: ARG002 - of segments
        """A descriptor to write with from an offset on, at most the end."""
        return self.fd

    def room(self, offset: int) -> int:  # noqa: ARG002 - of segments
        """Bytes that can be written at once at an offset."""
        return sys.maxsize

    def read(self, size: int, offset: int) -> bytes:
        """What was written at an offset."""
        return os.pread(self.fd, size, offset)

    def boundary(self, offset: int) -> int:
        """The last offset up to this one before which all can be given back."""
        return offset // self.block * self.block

    def free(self, end: int) -> None:
        """Give back what is before a boundary. Raises `OSError`."""
        if end > self._freed:
            syscalls.punch_hole(self.fd, self._freed, end - self._freed)
            self._freed = end

    def sync(self) -> None:
        """Have it survive a power cut. Raises `OSError`."""
        os.fsync(self.fd)


class Segments:
    """A new folder of segments, each of at most `block` bytes; otherwise as a `HoledFile`."""

    def __init__(self, name: str, block: int, *, dir_fd: int) -> None:
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        self._folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        self._starts: list[int] = []
        self.fd = -1  # of the last one
        self.block = block
        self.at(0)

    def at(self, offset: int) -> int:
        """A descriptor to write with from an offset on, at most the end. Raises `OSError`."""
        if not self._starts or offset >= self._starts[-1] + self.block:
            fd = self._open(offset, os.O_WRONLY | os.O_CREAT)
            if self.fd >= 0:
                os.close(self.fd)
            self.fd = fd
            self._starts.append(offset)
        return self.fd

    def room(self, offset: int) -> int:
        """Bytes that can be written at once at an offset: what belongs into one segment."""
        left = self._starts[-1] + self.block - offset
        return left if left > 0 else self.block

    def read(self, size: int, offset: int) -> bytes:
        """What was written at an offset, in one segment."""
        fd = self._open(self.boundary(offset), os.O_RDONLY)
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def boundary(self, offset: int) -> int:
        """The last offset up to this one before which all can be given back."""
        return self._starts[bisect_right(self._starts, offset) - 1]

    def free(self, end: int) -> None:
        """Give back what is before a boundary. Raises `OSError`."""
        while (first := self._starts[0]) < end:
            os.close(self._open(first, os.O_WRONLY | os.O_TRUNC))  # else it takes room while somebody has it open
            os.unlink(name_of(first), dir_fd=self._folder)
            del self._starts[0]

    def sync(self) -> None:
        """Have all of it survive a power cut. Raises `OSError`."""
        for start in self._starts:
            fd = self._open(start, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        os.fsync(self._folder)

    def _open(self, start: int, flags: int) -> int:
        return os.open(name_of(start), flags | os.O_CLOEXEC, 0o600, dir_fd=self._folder)


def name_of(start: int) -> str:
    """The name of a segment; in the order of names they are in that of their bytes."""
    return f"{start:020}"


def starts_in(folder: int) -> list[int]:
    """Where the segments in a folder begin, in their order. NFS may have left something else beside them."""
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def size_of(path: str, *, dir_fd: int | None = None) -> int:
    """Where a file of either form ends. Raises `FileNotFoundError`."""
    there = os.stat(path, dir_fd=dir_fd)
    if not stat.S_ISDIR(there.st_mode):
        return there.st_size
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        starts = starts_in(folder)
        return max(starts[-1], os.stat(name_of(starts[-1]), dir_fd=folder).st_size) if starts else 0
    finally:
        os.close(folder)


def delete(path: str, *, dir_fd: int) -> None:
    """Delete a file of either form. What is left of it if that is cut off is known by the lack of its beginning."""
    try:
        os.unlink(path, dir_fd=dir_fd)
    except IsADirectoryError:
        folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            for start in starts_in(folder):
                os.unlink(name_of(start), dir_fd=folder)
        finally:
            os.close(folder)
        os.rmdir(path, dir_fd=dir_fd)
