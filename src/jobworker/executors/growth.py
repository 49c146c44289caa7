"""Telling readers that their file has grown."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from jobworker.executors.threads import in_thread
from jobworker.linux import syscalls
from jobworker.linux.mounts import mount_of

Watch = Literal["inotify", "poll"]
OutputWatch = Literal["auto", "inotify", "poll"]  # as it is asked for

# Seconds between two looks at a file: after it has grown, and at most, after it has not grown for long. The time of a
# file is exact to some milliseconds, so that more looks would not tell more; and one a second is felt by nobody.
SHORTEST = 0.01
LONGEST = 1.0

_NO_ROOM = (errno.ENOSPC, errno.ENOMEM)  # this user has max_user_watches, or the kernel has no memory for one more


def watch_for(directory: Path, wanted: OutputWatch) -> Watch:
    """How to watch files in a directory, unless that has been decided: by inotify where it tells what happens."""
    if wanted != "auto":
        return wanted
    try:
        return "inotify" if not mount_of(str(directory)).is_opaque and _is_told(directory, _write) else "poll"
    except OSError as error:  # this user has max_user_instances, or there is no room to try
        return "poll" if error.errno == errno.EMFILE else "inotify"


def can_splice(directory: Path, watch: Watch) -> bool:
    """Whether files of a directory take a splice, and who watches one is told of it.

    By inotify, kernels before 6.4 do not tell it on overlayfs, which containers have.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(write_end, b"x")
        if watch == "inotify":
            return _is_told(directory, lambda file: os.splice(read_end, file, 1))
        with tempfile.TemporaryFile(dir=directory) as file:
            return os.splice(read_end, file.fileno(), 1) == 1
    except OSError:  # EINVAL, or no room to try
        return False
    finally:
        os.close(read_end)
        os.close(write_end)


def _write(file: int) -> int:
    return os.write(file, b"x")


def _is_told(directory: Path, write: Callable[[int], int]) -> bool:
    """Whether inotify tells of something that is written to a file of a directory. Raises `OSError`."""
    instance = syscalls.inotify_open()
    try:
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            syscalls.inotify_add(instance, os.fsencode(file.name), syscalls.IN_MODIFY)
            write(file.fileno())
            return bool(os.read(instance, 4096))
    except BlockingIOError:
        return False
    finally:
        os.close(instance)


class GrowthWatch:
    """Tells readers that their file has grown: by inotify or, where that has no room or is not wanted, by looking."""

    def __init__(self, watch: Watch = "inotify") -> None:
        self._poll = Poll()
        self._inotify: Inotify | None = None
        if watch == "inotify":
            with suppress(OSError):  # this user has max_user_instances
                self._inotify = Inotify()

    def add(self, path: bytes, reader: asyncio.Event) -> Callable[[], None]:
        """Set `reader` whenever the file grows, or one in a folder, until what is returned is called."""
        if self._inotify is not None:
            try:
                return self._inotify.add(path, reader)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
        return self._poll.add(path, reader)

    def close(self) -> None:
        """End it all."""
        self._poll.close()
        if self._inotify is not None:
            self._inotify.close()


class Inotify:
    """The kernel tells: one instance for all, one watch a file.

    It allows 128 instances a user, which is why a reader has none of its own.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._instance = syscalls.inotify_open()
        self._readers: dict[int, set[asyncio.Event]] = {}
        self._loop.add_reader(self._instance, self._receive)

    def add(self, path: bytes, reader: asyncio.Event) -> Callable[[], None]:
        """As `GrowthWatch.add`. Raises `OSError`."""
        watch = syscalls.inotify_add(self._instance, path, syscalls.IN_MODIFY)
        self._readers.setdefault(watch, set()).add(reader)
        return lambda: self._remove(watch, reader)

    def close(self) -> None:
        """Give the instance back."""
        self._loop.remove_reader(self._instance)
        os.close(self._instance)

    def _remove(self, watch: int, reader: asyncio.Event) -> None:
        readers = self._readers[watch]
        readers.discard(reader)
        if not readers:
            del self._readers[watch]
            with suppress(OSError):  # the file has been deleted, and the watch with it
                syscalls.inotify_remove(self._instance, watch)

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            for watch in syscalls.inotify_watches(os.read(self._instance, 64 * 1024)):
                # After a loss of events everybody has to look.
                watched = self._readers.values() if watch == -1 else [self._readers.get(watch, set())]
                for readers in watched:
                    for reader in readers:
                        reader.set()


class Poll:
    """Looks, in one task for all files that somebody reads: often at those that grow, seldom at the others."""

    def __init__(self) -> None:
        self._files: dict[bytes, _Polled] = {}
        self._added = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, path: bytes, reader: asyncio.Event) -> Callable[[], None]:
        """As `GrowthWatch.add`."""
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = _Polled(Path(os.fsdecode(path)))
        file.readers.add(reader)
        file.hurry()
        self._added.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return lambda: self._remove(path, reader)

    def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    def _remove(self, path: bytes, reader: asyncio.Event) -> None:
        readers = self._files[path].readers
        readers.discard(reader)
        if not readers:
            del self._files[path]

    async def _run(self) -> None:
        while self._files:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(file.look_at for file in self._files.values())):
                    await self._added.wait()
            self._added.clear()
            now = asyncio.get_running_loop().time()
            due = [file for file in self._files.values() if file.look_at <= now]
            if not due:
                continue
            for file, state in zip(due, await in_thread(_states, [file.path for file in due]), strict=True):
                file.saw(state)


class _Polled:
    """A file, or a folder of files, that is looked at now and then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readers: set[asyncio.Event] = set()
        self._state = _state(path)
        self._is_new = False
        self.hurry()

    def hurry(self) -> None:
        """Look soon."""
        self._interval = SHORTEST
        self.look_at = asyncio.get_running_loop().time() + self._interval

    def saw(self, state: object) -> None:
        """Tell readers of what has changed, twice: what comes right after a look may not change the time of a file."""
        before, self._state = self._state, state
        was_new, self._is_new = self._is_new, state != before
        if self._is_new or was_new:
            for reader in self.readers:
                reader.set()
        if self._is_new:
            self.hurry()
        else:
            self._interval = min(self._interval * 2, LONGEST)
            self.look_at = asyncio.get_running_loop().time() + self._interval


def _states(paths: list[Path]) -> list[object]:
    return [_state(path) for path in paths]


def _state(path: Path) -> object:
    """What changes when a file grows, or one of those in a folder."""
    try:
        there = path.stat()
        if not stat.S_ISDIR(there.st_mode):
            return there.st_size, there.st_mtime_ns
        return {one.name: _state(one) for one in path.iterdir()}
    except OSError:
        return None
