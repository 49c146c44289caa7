"""Reading the output of an ended job that has been compressed, here or in an archive."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Protocol

from jobworker.core.errors import OutputUnavailableError
from jobworker.core.output import Chunk, Gap, GapReason
from jobworker.executors.archive import Archives, ArchiveThreads, ReadAhead
from jobworker.executors.base import CHUNK_BYTES
from jobworker.executors.index import FileIndex
from jobworker.executors.packing import read_gaps
from jobworker.executors.seekable import SeekableReader
from jobworker.executors.threads import in_thread
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
    """The content of a compressed file. Raises `FileNotFoundError`."""

    def __init__(self, path: bytes) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123 - closed by `close`; a path of bytes
        self._reader: SeekableReader | None = None

    async def read(self, position: int, size: int) -> bytes:
        """Some of at most `size` bytes from a position on. Raises `OSError` for a file that is damaged."""
        return await in_thread(self._read, position, size)

    def _read(self, position: int, size: int) -> bytes:
        reader = self._reader
        if reader is None:  # not before, since it reads a table of all frames
            reader = self._reader = SeekableReader(self._pread, os.fstat(self._file.fileno()).st_size)
        return reader.read(position, size)

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


class PackedOutput:
    """An `Output` that neither grows nor shrinks. `size` is that of the file before it was compressed."""

    def __init__(self, directory: bytes, content: Content, *, size: int) -> None:
        self._content = content
        self._size = size
        self._gaps = read_gaps(directory + b"/" + jobdir.GAPS.encode())
        self._ended = asyncio.Event()
        self.index = FileIndex(directory + b"/" + jobdir.INDEX.encode())

    def extent(self) -> Extent:
        """Where it begins and ends."""
        return self._gaps.extent(self._size)

    async def read(self, offset: int, end: int, *, final: bool) -> Chunk | Gap | None:
        """The next piece from an offset to at most `end`; see `Output.read`."""
        if offset < self._gaps.first:
            return Gap(offset=offset, length=self._gaps.first - offset, reason=GapReason.TRIMMED)
        gap = self._gaps.after(offset)
        kept = min(end, self._size, offset + CHUNK_BYTES, self._size if gap is None else gap.offset)
        if offset < kept:
            data = await self._content.read(self._position(offset), kept - offset)
            if not data:
                raise OSError(errno.EIO, "the compressed output is shorter than what it was made from")
            return Chunk(offset=offset, data=data)
        if offset >= end or not final:
            return None
        stop, reason = (end, GapReason.DISK_FULL) if gap is None else (min(end, gap.end), gap.reason)
        return Gap(offset=offset, length=stop - offset, reason=reason)

    def _position(self, offset: int) -> int:
        """Where the content has the byte at an offset: after all that is kept before it."""
        first = self._gaps.first
        return offset - first - (self._gaps.missing(offset) - self._gaps.missing(first))

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
