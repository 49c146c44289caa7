"""What is missing of an output: bytes that could not be kept, and the first one that is kept still.

The file comes into being with the first of them: the offset of the first byte that is kept, then a record a gap. The
last record grows while a gap does; one is final once anything after it has been kept. Each has the sum of all gaps up
to its end, so that who wants no more than that reads the last one alone, however many there are.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from typing import NamedTuple

from jobworker.core.output import Gap, GapReason
from jobworker.runtime import jobdir
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.segments import size_of

HEADER = struct.Struct("<Q")
RECORD = struct.Struct("<QQQQ")  # offset, length, reason, bytes that are missing up to its end
REASONS = (GapReason.LIMIT, GapReason.DISK_FULL)


class Extent(NamedTuple):
    """Where an output begins and ends, how many bytes of it could not be kept, and where its file ends."""

    first: int = 0
    end: int = 0
    dropped: int = 0
    size: int = 0

    @property
    def kept(self) -> int:
        """Bytes that are there, or fewer: what has been given back had gaps, too."""
        return max(0, self.end - self.first - self.dropped)


class GapWriter:
    """Writes the file. What cannot be written is kept, and has to be before anything after it is: see `flush`."""

    def __init__(self, directory: JobDir) -> None:
        self._directory = directory
        self._fd = -1
        self._found = False  # whether the file would be there after a power cut
        self._count = 0
        self._dropped = 0
        self._unwritten = b""
        self.open: Gap | None = None

    def grow(self, offset: int, length: int, reason: GapReason) -> None:
        """`length` bytes from an offset on are missing: the open gap is longer, or one begins."""
        if self.open is None:
            self._count += 1
            self.open = Gap(offset=offset, length=0, reason=reason)
        self.open = Gap(offset=self.open.offset, length=self.open.length + length, reason=self.open.reason)
        self._dropped += length
        reason_number = REASONS.index(self.open.reason)
        self._unwritten = RECORD.pack(self.open.offset, self.open.length, reason_number, self._dropped)

    def close(self) -> None:
        """More has been kept: the open gap, which has been written, grows no more."""
        self.open = None

    def flush(self) -> None:
        """Write what has not been written. Raises `OSError`."""
        if self._unwritten:
            self._write(self._unwritten, HEADER.size + (self._count - 1) * RECORD.size)
            self._unwritten = b""

    def trim(self, first: int) -> None:
        """Tell that nothing before `first` is kept any more. Raises `OSError`."""
        self._write(HEADER.pack(first), 0)

    def sync(self) -> None:
        """Have it survive a power cut. Raises `OSError`."""
        if self._fd >= 0:
            os.fsync(self._fd)
            if not self._found:
                os.fsync(self._directory.fd)
                self._found = True

    def _write(self, data: bytes, position: int) -> None:
        if self._fd < 0:
            self._fd = self._directory.open_to_write(jobdir.GAPS)
        jobdir.write_at(self._fd, data, position)


class GapReader:
    """What a file of gaps says, as far as it has been read: `first` and the gaps in their order."""

    def __init__(self) -> None:
        self.first = 0
        self._records = bytearray()  # not a `Gap` each: there may be a hundred thousand

    def read(self, fd: int) -> None:
        """Read what has come since; only the last gap changes."""
        self.first = _first(fd)
        del self._records[max(0, len(self._records) - RECORD.size) :]
        position = HEADER.size + len(self._records)
        while data := os.pread(fd, max(0, os.fstat(fd).st_size - position), position):
            self._records += data
            position += len(data)
        del self._records[len(self._records) // RECORD.size * RECORD.size :]  # one that is being written

    def after(self, offset: int) -> Gap | None:
        """The gap that an offset is in, or the next one."""
        number = self._number(offset)
        return self._gap(number) if number < self._count else None

    def missing(self, offset: int) -> int:
        """Bytes before an offset that could not be kept."""
        number = self._number(offset)
        before = self._record(number - 1)[-1] if number else 0
        return before + (max(0, offset - self._gap(number).offset) if number < self._count else 0)

    def extent(self, size: int) -> Extent:
        """What there is of an output whose file has this size."""
        return _extent(self.first, self._records[-RECORD.size :], size)

    @property
    def _count(self) -> int:
        return len(self._records) // RECORD.size

    def _number(self, offset: int) -> int:
        """The number of the gap that an offset is in, or of the next one."""
        return bisect_right(range(self._count), offset, key=lambda number: self._gap(number).end)

    def _record(self, number: int) -> tuple[int, int, int, int]:
        return RECORD.unpack_from(self._records, number * RECORD.size)

    def _gap(self, number: int) -> Gap:
        offset, length, reason, _ = self._record(number)
        return Gap(offset=offset, length=length, reason=REASONS[reason])


def extent(directory: str = "", *, dir_fd: int | None = None) -> Extent:
    """What there is of the output in a job directory, given as a path or a descriptor; nothing if there is no file."""
    size = 0
    try:
        size = size_of(os.path.join(directory, jobdir.OUTPUT), dir_fd=dir_fd)
        fd = os.open(os.path.join(directory, jobdir.GAPS), os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return Extent(end=size, size=size)
    try:
        first, count = _first(fd), max(0, os.fstat(fd).st_size - HEADER.size) // RECORD.size
        last = os.pread(fd, RECORD.size, HEADER.size + (count - 1) * RECORD.size) if count else b""
    finally:
        os.close(fd)
    return _extent(first, last, size)


def _first(fd: int) -> int:
    header = os.pread(fd, HEADER.size, 0)
    return HEADER.unpack(header)[0] if header else 0


def _extent(first: int, last: bytes | bytearray, size: int) -> Extent:
    """What there is of an output with this last record of a gap, if any."""
    if not last:
        return Extent(first, size, 0, size)
    offset, length, _, dropped = RECORD.unpack(last)
    return Extent(first, max(size, offset + length), dropped, size)
