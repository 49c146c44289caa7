"""Reading the index of an output while it grows."""

from __future__ import annotations

from contextlib import suppress

from jobworker.executors.base import Span
from jobworker.executors.files import GrowingFile, open_file
from jobworker.runtime.index import KIND_BITS, KINDS, RECORD


class FileIndex:
    """An `OutputIndex` in a file, which comes into being with the first output."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._file: GrowingFile | None = None
        self.open()

    def open(self) -> None:
        """Have all of the file open that is there by now."""
        if self._file is not None:
            self._file.look()
        else:
            with suppress(FileNotFoundError):
                self._file = open_file(self._path)

    def __len__(self) -> int:
        """How many spans there are now."""
        file = self._opened()
        return 0 if file is None else file.size() // RECORD.size

    def spans(self, first: int, count: int) -> list[Span]:
        """At most so many spans, from this number on; see `OutputIndex.spans`."""
        file = self._opened()
        if file is None:
            return []
        before = min(first, 1)  # one more, whose end is the first one's beginning
        data = file.read((before + count) * RECORD.size, (first - before) * RECORD.size)
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
        if self._file is not None:
            self._file.close()

    def _opened(self) -> GrowingFile | None:
        if self._file is None:
            self.open()
        return self._file
