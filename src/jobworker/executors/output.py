"""Reading a job's output file while it grows."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from jobworker.core.output import Chunk, Gap, GapReason
from jobworker.executors.base import CHUNK_BYTES
from jobworker.executors.files import open_file
from jobworker.executors.growth import GrowthWatch
from jobworker.executors.index import FileIndex
from jobworker.executors.threads import in_thread
from jobworker.linux import syscalls
from jobworker.runtime import jobdir
from jobworker.runtime.gaps import Extent, GapReader

_THREAD_BYTES = 256 * 1024  # a read of less has most likely just been written and is in the page cache


def can_make_holes(directory: Path) -> bool:
    """Whether the file system of a directory can give back the beginning of a file that stays."""
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            syscalls.punch_hole(file.fileno(), 0, 4096)
        except OSError:
            return False
        return True


class FileOutput:
    """The output of one job, for one reader: the files of a job directory."""

    def __init__(self, directory: bytes, growth: GrowthWatch, *, indexed: bool) -> None:
        self._directory = directory
        self._gaps = GapReader()
        self._gaps_fd = -1
        self._ended = False
        self._event = asyncio.Event()
        output = self._path(jobdir.OUTPUT)
        with ExitStack() as opened:
            self._file = open_file(output)
            opened.callback(self._file.close)
            self.index = FileIndex(self._path(jobdir.INDEX))
            opened.callback(self.index.close)
            # Of the directory: the index is not there before the first output, and tells of all that comes.
            opened.callback(growth.add(directory if indexed else output, self._event))
            opened.callback(self._close_gaps)
            self._look_for_gaps()
            Path(os.fsdecode(output)).stat()  # not removed meanwhile: what has not been found was not there
            if self._file.first > self._gaps.first:
                raise FileNotFoundError(errno.ENOENT, "the output is being deleted")
            self._opened = opened.pop_all()

    def extent(self) -> Extent:
        """Where it begins and ends now."""
        size = self._file.size()
        self._look_for_gaps()
        return self._gaps.extent(size)

    async def read(self, offset: int, end: int, *, final: bool) -> Chunk | Gap | None:
        """The next piece from an offset to at most `end`; see `Output.read`."""
        size = self._file.size()
        available = min(end, size, offset + CHUNK_BYTES) - offset
        data = await self._read(offset, available) if available > 0 else b""
        # After the look at the size, since a gap is recorded before what follows it, and after the read, since what is
        # given back is told before it reads as zeros.
        self._look_for_gaps()
        if offset < self._gaps.first:
            return Gap(offset=offset, length=self._gaps.first - offset, reason=GapReason.TRIMMED)
        gap = self._gaps.after(offset)
        if gap is not None and offset < gap.offset:
            data, gap = data[: gap.offset - offset], None
        if gap is not None:
            if size <= gap.end and not final:  # it may grow
                return None
            data = b""
        if data:
            return Chunk(offset=offset, data=data)
        if final and offset < end:
            stop, reason = (end, GapReason.DISK_FULL) if gap is None else (min(end, gap.end), gap.reason)
            return Gap(offset=offset, length=stop - offset, reason=reason)
        return None if gap is None else Gap(offset=offset, length=gap.end - offset, reason=gap.reason)

    async def _read(self, offset: int, size: int) -> bytes:
        if size < _THREAD_BYTES:
            return self._file.read(size, offset)
        return await in_thread(self._file.read, size, offset)  # a backlog may come from a disk

    def _look_for_gaps(self) -> None:
        if self._gaps_fd < 0 and not self._ended:
            with suppress(FileNotFoundError):
                self._gaps_fd = os.open(self._path(jobdir.GAPS), os.O_RDONLY | os.O_CLOEXEC)
        if self._gaps_fd >= 0:
            self._gaps.read(self._gaps_fd)

    async def changed(self) -> None:
        """Wait until there may be more than at the last look. It may return for nothing."""
        await self._event.wait()
        self._event.clear()

    def wake(self) -> None:
        """Make `changed` return: the job has ended. What is there has to be open now, since it may be removed next."""
        self._file.look()
        self.index.open()
        self._look_for_gaps()
        self._ended = True
        self._event.set()

    def close(self) -> None:
        """Let go of the output."""
        self._opened.close()

    def _close_gaps(self) -> None:
        if self._gaps_fd >= 0:
            os.close(self._gaps_fd)

    def _path(self, name: str) -> bytes:
        return self._directory + b"/" + name.encode()
