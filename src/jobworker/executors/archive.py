"""Files in an archive, in any place that fsspec knows: a folder, S3, ...

Where it is and how to be let in is said in the environment and the files of the libraries that do it, such as
AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and ~/.aws/config for S3: no secret passes through here. Nothing is imported before
an archive is used.

Each archive has an id, in a file beside the others. A place that does not have it is another one: the folder on which
the archive is not mounted now.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from jobworker.core.errors import InvalidArgumentError

PATIENCE = 30.0  # seconds for one answer of an archive: it gives a mebibyte within seconds or is not there
CALLS = 16  # that an archive is asked at once; each takes a thread, which one that does not answer keeps for minutes

ID_FILE = ".jobworker-archive"

_BLOCK = 1024 * 1024
_ID_BYTES = 32
_LOCAL = ("", "file", "local")

Result = TypeVar("Result")


class FileSystem(Protocol):
    """What is used of fsspec's file systems."""

    def put_file(self, lpath: str, rpath: str) -> None:
        """Upload a file."""
        ...

    def info(self, path: str) -> Mapping[str, Any]:
        """What is known of a file, its `size` among it."""
        ...

    def cat_file(self, path: str, *, start: int, end: int) -> bytes:
        """A part of a file."""
        ...

    def rm_file(self, path: str) -> None:
        """Delete a file."""
        ...

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget what is known of files."""
        ...


def check_url(url: str) -> None:
    """Raise `InvalidArgumentError` unless `url` is a folder of an archive that the installed libraries can use."""
    parts = urlsplit(url)
    problem = None
    if parts.username or parts.password or parts.query or parts.fragment:
        problem = "must not say who is let in: that belongs into the environment or the files of the library"
    elif not parts.scheme and not Path(url).is_absolute():
        problem = "must be an absolute path or a URL such as s3://bucket/folder"
    elif importlib.util.find_spec("fsspec") is None:
        problem = "takes more libraries: install jobworker[archive]"
    elif parts.scheme not in _LOCAL:
        known = importlib.import_module("fsspec.registry").known_implementations
        if parts.scheme not in known:
            problem = f"begins with {parts.scheme!r}, which fsspec does not know"
        elif importlib.util.find_spec(library := known[parts.scheme]["class"].partition(".")[0]) is None:
            problem = f"takes the library {library}, which is not installed"
    if problem is not None:
        raise InvalidArgumentError("archive_url", problem)


def is_local(url: str) -> bool:
    """Whether a URL is a folder or a file of this machine."""
    return urlsplit(url).scheme in _LOCAL


def reason(error: Exception) -> str:
    """Why something failed in an archive, without the words of its library, which may name what is secret."""
    text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else ""
    return ": ".join(filter(None, (type(error).__name__, text)))


class Archives:
    """All archives, each with one connection, or what its library calls so."""

    def __init__(self) -> None:
        self._systems: dict[tuple[str, str], FileSystem] = {}

    def file(self, url: str) -> ArchivedFile:
        """The file at a URL, which need not be there. It may block, and raises whatever the library raises."""
        core = importlib.import_module("fsspec.core")
        place = urlsplit(url)[:2]
        if place not in self._systems:
            # fsspec would keep one for each thread, for ever.
            system, _ = core.url_to_fs(url, skip_instance_cache=True)
            self._systems[place] = cast("FileSystem", system)
        return ArchivedFile(self._systems[place], core.strip_protocol(url), is_local=is_local(url))

    def id(self, folder: str) -> str | None:
        """The id of the archive at a URL, `None` if no archive has been there; it may block, and raises as `file`."""
        with suppress(FileNotFoundError):
            found = self.file(f"{folder}/{ID_FILE}").read(0, _ID_BYTES).decode(errors="replace")
            return found if len(found) == _ID_BYTES else None  # it was cut off
        return None

    def make_id(self, folder: str) -> str:
        """As `id`, and gives one to a place that has none, which has to exist."""
        if (found := self.id(folder)) is not None:
            return found
        made = secrets.token_hex(_ID_BYTES // 2)
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_text(made)
            self.file(f"{folder}/{ID_FILE}").put(Path(file.name))
        return made

    def delete(self, url: str, archive_id: str) -> None:
        """Delete a file of the archive with this id; one that is not there is no error, but an archive that is not is.

        It may block, and raises as `file`, `FileNotFoundError` for an archive that is not there.
        """
        file = self.file(url)
        try:
            file.size()  # some places delete without a word what is not there
            file.delete()
        except FileNotFoundError:
            if self.id(url.rpartition("/")[0]) != archive_id:
                raise


class ArchivedFile:
    """A file in an archive. Every call may block, and raises whatever the library raises, mostly `OSError`."""

    def __init__(self, system: FileSystem, path: str, *, is_local: bool) -> None:
        self._system = system
        self._path = path
        self._is_local = is_local

    def put(self, source: Path) -> None:
        """Have it hold what a file holds; when this returns, it has been read back and is the same."""
        if self._is_local:
            self._put_local(source)
        else:
            self._system.put_file(str(source), self._path)
        size = source.stat().st_size
        if self.size() != size or self._digest(size) != _digest(source):
            raise OSError(f"what was put into the archive is not what {source.name} holds")

    def size(self) -> int:
        """How many bytes it has."""
        self._system.invalidate_cache()
        return int(self._system.info(self._path)["size"])

    def read(self, start: int, end: int) -> bytes:
        """A part of it."""
        return self._system.cat_file(self._path, start=start, end=end)

    def delete(self) -> None:
        """Delete it. Raises `FileNotFoundError`; some places, S3 among them, do not say whether it was there."""
        self._system.rm_file(self._path)

    def _put_local(self, source: Path) -> None:
        with suppress(FileNotFoundError):  # of an attempt that was cut off
            self.delete()
        # Not by fsspec, for which everybody may read it. What somebody else put there meanwhile is not written to.
        with source.open("rb") as content, open(self._path, "xb", opener=_private) as file:
            shutil.copyfileobj(content, file, _BLOCK)
            file.flush()
            os.fsync(file.fileno())
        _sync(Path(self._path).parent)

    def _digest(self, size: int) -> bytes:
        found = hashlib.sha256()
        for start in range(0, size, 8 * _BLOCK):
            found.update(self.read(start, min(size, start + 8 * _BLOCK)))
        return found.digest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class ReadAhead:
    """Reads a file in pieces of at least a mebibyte, for one who reads on: each request takes its time."""

    def __init__(self, file: ArchivedFile, size: int) -> None:
        self._file = file
        self._size = size
        self._start = 0
        self._data = b""

    def read(self, position: int, size: int) -> bytes:
        """A part of the file."""
        if not self._start <= position <= position + size <= self._start + len(self._data):
            self._data = self._file.read(position, min(self._size, position + max(size, _BLOCK)))
            self._start = position
        return self._data[position - self._start :][:size]


class ArchiveThreads:
    """Threads to ask archives in, that nobody has to wait for, not even the end of the process."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(CALLS)

    async def run(self, function: Callable[[], Result]) -> Result:
        """What a function returns or raises; `TimeoutError` after `PATIENCE`, and it goes on then."""
        async with asyncio.timeout(PATIENCE):
            await self._free.acquire()
            loop = asyncio.get_running_loop()
            result: asyncio.Future[Result] = loop.create_future()
            try:
                Thread(target=self._call, args=(function, loop, result), name="archive", daemon=True).start()
            except RuntimeError as error:
                self._free.release()
                raise OSError("there is no thread to be had") from error
            return await result

    def _call(
        self, function: Callable[[], Result], loop: asyncio.AbstractEventLoop, result: asyncio.Future[Result]
    ) -> None:
        try:
            settle = partial(result.set_result, function())
        except Exception as error:  # noqa: BLE001 - handed on
            settle = partial(result.set_exception, error)
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(self._settle, result, settle)

    def _settle(self, result: asyncio.Future[Result], settle: Callable[[], None]) -> None:
        self._free.release()
        if not result.done():
            settle()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
