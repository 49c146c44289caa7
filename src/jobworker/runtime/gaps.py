"""What is missing of an output: bytes that could not be kept, and the first one that is kept still.

The file comes into being with the first of them: the offset of the first byte that is kept, then a record a gap. The
last record grows while a gap does; one is final once anything after it has been kept.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from typing import NamedTuple

from jobworker.core.output import Gap, GapReason
from jobworker.runtime import jobdir
from jobworker.runtime.jobdir import JobDir

HEADER = struct.Struct("<Q")
RECORD = struct.Struct("<QQQ")  # offset, length, reason
REASONS = (GapReason.LIMIT, GapReason.DISK_FULL)

_READ_BYTES = 64 * 1024


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
        self._count = 0
        self._unwritten = b""
        self.open: Gap | None = None

    def grow(self, offset: int, length: int, reason: GapReason) -> None:
        """`length` bytes from an offset on are missing: the open gap is longer, or one begins."""
        if self.open is None:
            self._count += 1
            self.open = Gap(offset=offset, length=0, reason=reason)
        self.open = Gap(offset=self.open.offset, length=self.open.length + length, reason=self.open.reason)
        self._unwritten = RECORD.pack(self.open.offset, self.open.length, REASONS.index(self.open.reason))

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

    def _write(self, data: bytes, position: int) -> None:
        if self._fd < 0:
            self._fd = self._directory.open_to_write(jobdir.GAPS)
        jobdir.write_at(self._fd, data, position)


class GapReader:
    """What a file of gaps says, as far as it has been read: `first` and the gaps in their order."""

    def __init__(self) -> None:
        self.first = 0
        self._gaps: list[Gap] = []

    def read(self, fd: int) -> None:
        """Read what has come since; only the last gap changes."""
        if header := os.pread(fd, HEADER.size, 0):
            (self.first,) = HEADER.unpack(header)
        known = max(0, len(self._gaps) - 1)
        position = HEADER.size + known * RECORD.size
        del self._gaps[known:]
        while data := os.pread(fd, _READ_BYTES // RECORD.size * RECORD.size, position):
            whole = len(data) // RECORD.size * RECORD.size
            for start in range(0, whole, RECORD.size):
                record: tuple[int, int, int] = RECORD.unpack_from(data, start)
                offset, length, reason = record
                self._gaps.append(Gap(offset=offset, length=length, reason=REASONS[reason]))
            position += whole
            if whole < len(data):  # one that is being written
                return

    def after(self, offset: int) -> Gap | None:
        """The gap that an offset is in, or the next one."""
        position = bisect_right(self._gaps, offset, key=lambda gap: gap.end)
        return self._gaps[position] if position < len(self._gaps) else None

    def extent(self, size: int) -> Extent:
        """What there is of an output whose file has this size."""
        end = max(size, self._gaps[-1].end) if self._gaps else size
        return Extent(self.first, end, sum(gap.length for gap in self._gaps), size)


def extent(directory: str = "", *, dir_fd: int | None = None) -> Extent:
    """What there is of the output in a job directory, given as a path or a descriptor; nothing if there is no file."""
    gaps, size = GapReader(), 0
    try:
        size = os.stat(os.path.join(directory, jobdir.OUTPUT), dir_fd=dir_fd).st_size
        fd = os.open(os.path.join(directory, jobdir.GAPS), os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return gaps.extent(size)
    try:
        gaps.read(fd)
    finally:
        os.close(fd)
    return gaps.extent(size)
