"""Reading a file that grows at its end and gives back its beginning, whichever form it has: see `runtime.segments`."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from itertools import pairwise
from typing import Protocol

from jobworker.runtime.segments import name_of, starts_in


class GrowingFile(Protocol):
    """A file that is open. What has been given back reads as zeros; what is deleted once it is open stays readable."""

    @property
    def first(self) -> int:
        """The offset before which nothing was there when it was looked at last."""
        ...

    def size(self) -> int:
        """Where it ends now."""
        ...

    def read(self, size: int, offset: int) -> bytes:
        """What is there from an offset on, as `os.pread`; as far as the size was when it was asked for last."""
        ...

    def look(self) -> None:
        """Have all open that is there now."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


def open_file(path: str | bytes, *, dir_fd: int | None = None) -> GrowingFile:
    """Open a file of either form. Raises `FileNotFoundError`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    return SegmentFiles(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else OneFile(fd)


class OneFile:
    """One file, in which there may be holes."""

    first = 0

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def size(self) -> int:
        """Where it ends now."""
        return os.fstat(self._fd).st_size

    def read(self, size: int, offset: int) -> bytes:
        """What is there from an offset on."""
        return os.pread(self._fd, size, offset)

    def look(self) -> None:
        """All is open."""

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class SegmentFiles:
    """A folder of segments, which are all held open: some ten."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._files: dict[int, int] = {}  # descriptors by the offsets at which they begin, in that order
        try:
            self.look()
        except OSError:
            self.close()
            raise

    @property
    def first(self) -> int:
        """The offset before which nothing was there when it was looked at last."""
        return next(iter(self._files), sys.maxsize)

    def size(self) -> int:
        """Where it ends now."""
        self._let_go()
        self.look()
        last = next(reversed(self._files), None)
        return 0 if last is None else max(last, os.fstat(self._files[last]).st_size)

    def read(self, size: int, offset: int) -> bytes:
        """What is there from an offset on."""
        data = bytearray()
        for start, end in pairwise([*self._files, sys.maxsize]):
            data += bytes(max(0, min(start - offset, size) - len(data)))  # what is missing before this segment
            position, stop = offset + len(data), min(offset + size, end)
            if start <= position < stop:
                data += os.pread(self._files[start], stop - position, position)
        return bytes(data)

    def look(self) -> None:
        """Have all segments open that are there now."""
        for start in starts_in(self._folder):
            if start not in self._files:
                with suppress(FileNotFoundError):  # given back meanwhile
                    self._files[start] = os.open(name_of(start), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)

    def _let_go(self) -> None:
        """Close what has been given back. Nothing is read meanwhile, as may be at a look."""
        for start in self._files.keys() - starts_in(self._folder):
            if not os.fstat(self._files[start]).st_size:  # one that was deleted after the end has its bytes
                os.close(self._files.pop(start))

    def close(self) -> None:
        """Close all of it."""
        for fd in (self._folder, *self._files.values()):
            os.close(fd)
