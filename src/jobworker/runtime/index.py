"""The index of an output file: when each part of it arrived, and from which stream.

The parts follow each other. A record says where one ends, when it arrived and what it is. Parts of the same kind that
come within a millisecond are one, whose record is written again as it grows. Once there are more records than the bytes
that are kept deserve, that time doubles with each so many more: their number grows as a logarithm of time.
"""

from __future__ import annotations

import struct
import time

from jobworker.core.output import Stream
from jobworker.runtime import jobdir
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.segments import HoledFile, Segments

RECORD = struct.Struct("<QQ")  # offset of the end; nanoseconds since the epoch, shifted by KIND_BITS, and the kind
KINDS = (Stream.COMBINED, Stream.STDOUT, Stream.STDERR, None)
KIND_BITS = 2
MISSING = 3  # the kind of a part that could not be kept

_MERGE = 1_000_000  # nanoseconds; else a job that writes single bytes would have an index larger than its output
_FREE_RECORDS = 64 * 1024  # a MiB
_KEPT_BYTES = 64  # a record; with this an index takes a quarter of what is kept
_STEP_RECORDS = 4096  # beyond
_MAX_STEPS = 32  # 50 days
_BLOCK = 4096  # bytes that are given back at once, at least
_MIN_SEGMENT = 1024 * 1024  # bytes


class IndexWriter:
    """Appends records. What cannot be written is kept, and has to be before the next one: see `flush`.

    With `segment`, there are segments of at least so many bytes.
    """

    def __init__(self, directory: JobDir, *, segment: int | None = None) -> None:
        self._directory = directory
        self._segment = segment
        self._file: HoledFile | Segments | None = None
        self._count = 0
        self._kind = -1
        self._time = 0
        self._unwritten = b""
        self._freed = 0  # bytes from the beginning
        self._end = 0
        self._first = 0
        self._missing = 0

    def add(self, end: int, kind: int) -> None:
        """All up to `end` that has no record yet has arrived now. Raises `OSError`."""
        now = max(time.time_ns(), self._time)  # a clock that is set back does not make times unordered
        if kind == MISSING:
            self._missing += end - self._end
        self._end = end
        if kind != self._kind or now - self._time >= _MERGE << self._steps():
            self._count += 1
            self._kind = kind
            self._time = now
        self._unwritten = RECORD.pack(end, self._time << KIND_BITS | kind)
        self.flush()

    def flush(self) -> None:
        """Write what could not be written. Raises `OSError`."""
        if self._unwritten:
            if self._file is None:
                self._file = self._make()
            position = (self._count - 1) * RECORD.size
            jobdir.write_at(self._file.at(position), self._unwritten, position)
            self._unwritten = b""

    def _make(self) -> HoledFile | Segments:
        if self._segment is None:
            return HoledFile(self._directory.open_to_write(jobdir.INDEX), _BLOCK)
        return Segments(jobdir.INDEX, max(_MIN_SEGMENT, self._segment), dir_fd=self._directory.fd)

    def trim(self, first: int) -> None:
        """Give back the blocks of records of parts that end before `first`. Raises `OSError`."""
        if self._file is None:
            return
        low, high = self._freed // RECORD.size, self._count
        while low < high:
            middle = (low + high) // 2
            end, _ = RECORD.unpack(self._file.read(RECORD.size, middle * RECORD.size))
            low, high = (middle + 1, high) if end <= first else (low, middle)
        self._freed = self._file.boundary(low * RECORD.size)
        self._file.free(self._freed)
        self._first = first

    def sync(self) -> None:
        """Have it survive a power cut. Raises `OSError`."""
        if self._file is not None:
            self._file.sync()

    def _steps(self) -> int:
        """How often the time in which parts are one has doubled."""
        kept = max(0, self._end - self._first - self._missing)
        beyond = self._count - self._freed // RECORD.size - _FREE_RECORDS - kept // _KEPT_BYTES
        return min(_MAX_STEPS, max(0, -(-beyond // _STEP_RECORDS)))
