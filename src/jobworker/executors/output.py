"""Reading a job's output file while it grows."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from jobworker.linux import syscalls

_THREAD_BYTES = 256 * 1024  # a read of less has most likely just been written and is in the page cache


class GrowthWatch:
    """Tells readers that their file has grown: one inotify instance for all, one watch a file.

    The kernel allows 128 instances a user, which is why a reader has none of its own.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._inotify = syscalls.inotify_open()
        self._readers: dict[int, set[asyncio.Event]] = {}
        self._loop.add_reader(self._inotify, self._receive)

    def add(self, path: bytes, reader: asyncio.Event) -> int:
        """Set `reader` whenever the file grows; returns what `remove` needs."""
        watch = syscalls.inotify_add(self._inotify, path, syscalls.IN_MODIFY)
        self._readers.setdefault(watch, set()).add(reader)
        return watch

    def remove(self, watch: int, reader: asyncio.Event) -> None:
        """Leave `reader` alone from now on."""
        readers = self._readers[watch]
        readers.discard(reader)
        if not readers:
            del self._readers[watch]
            with suppress(OSError):  # the file has been deleted, and the watch with it
                syscalls.inotify_remove(self._inotify, watch)

    def close(self) -> None:
        """Give the instance back."""
        self._loop.remove_reader(self._inotify)
        os.close(self._inotify)

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            for watch in syscalls.inotify_watches(os.read(self._inotify, 64 * 1024)):
                # After a loss of events everybody has to look.
                watched = self._readers.values() if watch == -1 else [self._readers.get(watch, set())]
                for readers in watched:
                    for reader in readers:
                        reader.set()


def splice_is_seen(directory: Path) -> bool:
    """Whether who watches a file of a directory is told of what was spliced into it.

    Kernels before 6.4 do not tell it on overlayfs, which containers have; and some file systems take no splice.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    instance = syscalls.inotify_open()
    try:
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            syscalls.inotify_add(instance, os.fsencode(file.name), syscalls.IN_MODIFY)
            os.write(write_end, b"x")
            os.splice(read_end, file.fileno(), 1)
            return bool(os.read(instance, 4096))
    except OSError:  # no event (EAGAIN), no splice (EINVAL), or no room to try
        return False
    finally:
        for fd in (read_end, write_end, instance):
            os.close(fd)


class FileOutput:
    """The output of one job, for one reader."""

    def __init__(self, path: bytes, watch: GrowthWatch) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._event = asyncio.Event()
        self._growth = watch
        try:
            self._watch = watch.add(path, self._event)
        except OSError:
            os.close(self._fd)
            raise

    def size(self) -> int:
        """Bytes there are now."""
        return os.fstat(self._fd).st_size

    async def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; fewer, or none, where the output ends for now."""
        self._event.clear()  # before the look, so that growth after it is not missed
        available = min(size, self.size() - offset)
        if available <= 0:
            return b""
        if available < _THREAD_BYTES:
            return os.pread(self._fd, available, offset)
        try:
            return await asyncio.to_thread(os.pread, self._fd, available, offset)  # a backlog may come from a disk
        except RuntimeError:  # there is no thread to be had: that others wait is better than that this one fails
            return os.pread(self._fd, available, offset)

    async def changed(self) -> None:
        """Wait until there may be more than at the last `read`. It may return for nothing."""
        await self._event.wait()

    def wake(self) -> None:
        """Make `changed` return."""
        self._event.set()

    def close(self) -> None:
        """Let go of the output."""
        self._growth.remove(self._watch, self._event)
        os.close(self._fd)
