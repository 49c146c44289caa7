"""Reading the index of an output while it grows."""

from __future__ import annotations

import os
from contextlib import suppress

from jobworker.executors.base import Span
from jobworker.runtime.index import KIND_BITS, KINDS, RECORD


class FileIndex:
    """An `OutputIndex` in a file, which comes into being with the first output."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._fd = -1
        self.open()

    def open(self) -> None:
        """Open the file if it is there by now."""
        if self._fd < 0:
            with suppress(FileNotFoundError):
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def __len__(self) -> int:
        """How many spans there are now."""
        self.open()
        return 0 if self._fd < 0 else os.fstat(self._fd).st_size // RECORD.size

    def spans(self, first: int, count: int) -> list[Span]:
        """At most so many spans, from this number on; see `OutputIndex.spans`."""
        self.open()
        if self._fd < 0:
            return []
        before = min(first, 1)  # one more, whose end is the first one's beginning
        data = os.pread(self._fd, (before + count) * RECORD.size, (first - before) * RECORD.size)
        found: list[Span] = []
        offset = 0
        for position in range(0, len(data) // RECORD.size * RECORD.size, RECORD.size):
            end, what = RECORD.unpack_from(data, position)
            if position or not before:
                found.append(Span(offset, end, KINDS[what & (1 << KIND_BITS) - 1], what >> KIND_BITS))
            offset = end
        return found

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
