"""Reading the output of an ended job that has been compressed, here or in an archive."""

from __future__ import annotations

import asyncio
import errno
import os
from bisect import bisect_right
from typing import NamedTuple, Protocol

from jobworker.core.errors import OutputUnavailableError
from jobworker.core.output import Chunk, Gap, GapReason
from jobworker.executors.archive import Archives, ArchiveThreads, ReadAhead
from jobworker.executors.base import CHUNK_BYTES
from jobworker.executors.index import FileIndex
from jobworker.executors.packing import kept, read_gaps
from jobworker.executors.seekable import SeekableReader
from jobworker.runtime import jobdir
from jobworker.runtime.gaps import Extent
from jobworker.runtime.jobdir import Record


class Content(Protocol):
    """All bytes that are kept of an output, one after the other."""

    async def read(self, position: int, size: int) -> bytes:
        """Some of at most `size` bytes from a position on; nothing at the end."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class LocalContent:
    """The content of a compressed file. Raises `FileNotFoundError` and, for one that is damaged, `OSError`."""

    def __init__(self, path: bytes) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123 - closed by `close`; a path of bytes
        try:
            self._reader = SeekableReader(self._pread, os.fstat(self._file.fileno()).st_size)
        except OSError:
            self._file.close()
            raise

    async def read(self, position: int, size: int) -> bytes:
        """Some of at most `size` bytes from a position on."""
        return await asyncio.to_thread(self._reader.read, position, size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _pread(self, position: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, position)


class ArchivedContent:
    """The content of a compressed file in an archive."""

    def __init__(self, job_id: str, record: Record, archives: Archives, threads: ArchiveThreads) -> None:
        self._job_id = job_id
        self._url: str = record["url"]
        self._size: int = record["size"]
        self._archives = archives
        self._threads = threads
        self._reader: SeekableReader | None = None

    async def read(self, position: int, size: int) -> bytes:
        """Some of at most `size` bytes from a position on. Raises `OutputUnavailableError`."""
        try:
            return await self._threads.run(lambda: self._open().read(position, size))
        except Exception as error:  # libraries for archives raise anything
            raise OutputUnavailableError(self._job_id) from error

    def close(self) -> None:
        """Forget what has been read."""
        self._reader = None

    def _open(self) -> SeekableReader:
        reader = self._reader
        if reader is None:
            file = ReadAhead(self._archives.file(self._url), self._size)
            reader = self._reader = SeekableReader(file.read, self._size)
        return reader


class _Kept(NamedTuple):
    """A part of an output that is kept, and its position in the content."""

    offset: int
    end: int
    position: int


class PackedOutput:
    """An `Output` that neither grows nor shrinks. `size` is that of the file before it was compressed."""

    def __init__(self, directory: bytes, content: Content, *, size: int) -> None:
        self._content = content
        self._size = size
        self._gaps = read_gaps(directory + b"/" + jobdir.GAPS.encode())
        self._kept: list[_Kept] = []
        position = 0
        for offset, end in kept(self._gaps, size):
            self._kept.append(_Kept(offset, end, position))
            position += end - offset
        self._ended = asyncio.Event()
        self.index = FileIndex(directory + b"/" + jobdir.INDEX.encode())

    def extent(self) -> Extent:
        """Where it begins and ends."""
        return self._gaps.extent(self._size)

    async def read(self, offset: int, end: int, *, final: bool) -> Chunk | Gap | None:
        """The next piece from an offset to at most `end`; see `Output.read`."""
        number = bisect_right(self._kept, offset, key=lambda part: part.end)
        part = self._kept[number] if number < len(self._kept) else None
        if part is not None and part.offset <= offset < end:
            size = min(end, part.end, offset + CHUNK_BYTES) - offset
            data = await self._content.read(part.position + offset - part.offset, size)
            if not data:
                raise OSError(errno.EIO, "the compressed output is shorter than what it was made from")
            return Chunk(offset=offset, data=data)
        if offset < self._gaps.first:
            return Gap(offset=offset, length=self._gaps.first - offset, reason=GapReason.TRIMMED)
        if offset >= end or not final:
            return None
        gap = self._gaps.after(offset)
        stop, reason = (end, GapReason.DISK_FULL) if gap is None else (min(end, gap.end), gap.reason)
        return Gap(offset=offset, length=stop - offset, reason=reason)

    async def changed(self) -> None:
        """Wait for what never comes, unless it has been told to."""
        await self._ended.wait()
        self._ended.clear()

    def wake(self) -> None:
        """Make `changed` return."""
        self._ended.set()

    def close(self) -> None:
        """Let go of the output."""
        self.index.close()
        self._content.close()
