"""The program that makes an ended job's output take less room: it compresses it, and moves it to an archive.

Each step is one that can be cut off at any moment: a whole copy of the output is there before the last one goes, and
what was begun is begun anew. `records` tells of it: `compressed` has the size that the raw output had, and `archived`
the URL and the size of the compressed one, the id of the archive, and whether it is whole, from before anything is put
there.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from jobworker.executors.archive import Archives, reason
from jobworker.executors.files import GrowingFile, open_file
from jobworker.executors.seekable import FRAME_BYTES, compressed
from jobworker.linux import syscalls
from jobworker.runtime import jobdir
from jobworker.runtime.gaps import GapReader
from jobworker.runtime.jobdir import JobDir, Record

_UNFINISHED = jobdir.COMPRESSED_OUTPUT + ".unfinished"
_NICENESS = 19  # the least of all: nobody waits for it


def main(path: str, reserve: str, parent: str, archive_url: str = "") -> None:
    """Compress the output in a job directory, and move it to an archive if there is one; exits with 1 and says why."""
    syscalls.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)
    os.nice(_NICENESS)
    try:
        with JobDir.open(path) as directory:
            pack(directory, int(reserve), archive_url)
    except Exception as error:  # noqa: BLE001 - libraries for archives raise anything; the daemon is told
        sys.exit(reason(error))


def pack(directory: JobDir, reserve: int, archive_url: str) -> None:
    """As `main`. Does nothing if the job has not ended, or while somebody else is at it."""
    lock = directory.lock()
    if lock is None:
        return
    try:
        if directory.read(jobdir.EXIT) is None:
            return
        compress(directory, reserve)
        if archive_url:
            archive(directory, archive_url)
    finally:
        os.close(lock)


def compress(directory: JobDir, reserve: int) -> None:
    """Put a compressed output in place of the raw one, which stays as it is if there is no room for both.

    `reserve` bytes of the file system are not touched. Raises `OSError`.
    """
    try:
        raw = open_file(jobdir.OUTPUT, dir_fd=directory.fd)
    except FileNotFoundError:
        return
    try:
        if not _exists(directory, jobdir.COMPRESSED_OUTPUT):
            try:
                _write_compressed(directory, raw, reserve)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(_UNFINISHED, dir_fd=directory.fd)
                raise
        directory.delete_output()
    finally:
        raw.close()


def archive(directory: JobDir, url: str) -> None:
    """Move a compressed output to a file below a URL. Raises what the archive's library raises, and `OSError`.

    What was begun goes on in the archive where it was begun, and waits for that one.
    """
    folder = Path(f"/proc/self/fd/{directory.fd}")
    local = folder / jobdir.COMPRESSED_OUTPUT
    record = directory.read(jobdir.ARCHIVED)
    if not _exists(directory, jobdir.COMPRESSED_OUTPUT):
        return
    archives = Archives()
    if record is None:
        top = url.rstrip("/")
        place = f"{top}/{folder.readlink().name}.zst"
        record = Record(url=place, archive_id=archives.make_id(top), size=local.stat().st_size, whole=False)
        directory.write(jobdir.ARCHIVED, record, sync=True)
    if not record["whole"]:
        if archives.id(record["url"].rpartition("/")[0]) != record.get("archive_id"):
            raise FileNotFoundError(errno.ENOENT, "another archive is where this one was")
        archives.file(record["url"]).put(local)
        directory.write(jobdir.ARCHIVED, {**record, "whole": True}, sync=True)
    os.unlink(jobdir.COMPRESSED_OUTPUT, dir_fd=directory.fd)


def kept(gaps: GapReader, size: int) -> Iterator[tuple[int, int]]:
    """The offsets between which a file of this size has output: what is compressed, without anything between."""
    offset = gaps.first
    while offset < size:
        gap = gaps.after(offset)
        end = size if gap is None else min(gap.offset, size)
        if offset < end:
            yield offset, end
        offset = size if gap is None else gap.end


def read_gaps(path: str | bytes, *, dir_fd: int | None = None) -> GapReader:
    """What a file of gaps says; nothing if there is none."""
    gaps = GapReader()
    with suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            gaps.read(fd)
        finally:
            os.close(fd)
    return gaps


def _write_compressed(directory: JobDir, raw: GrowingFile, reserve: int) -> None:
    size = raw.size()
    gaps = read_gaps(jobdir.GAPS, dir_fd=directory.fd)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(_UNFINISHED, flags, 0o600, dir_fd=directory.fd)
    with os.fdopen(fd, "wb") as file:
        for frame in compressed(_blocks(raw, kept(gaps, size))):
            there = os.fstatvfs(fd)
            # Without a size it does not say: ramfs and some in the network.
            if there.f_blocks and there.f_bavail * there.f_frsize < reserve + len(frame):
                raise OSError(errno.ENOSPC, "there is no room to compress output")
            file.write(frame)
        file.flush()
        os.fsync(fd)
    directory.write(jobdir.COMPRESSED, {"size": size}, sync=True)  # with this, the end of the job is durable, too
    os.rename(_UNFINISHED, jobdir.COMPRESSED_OUTPUT, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
    os.fsync(directory.fd)


def _blocks(file: GrowingFile, ranges: Iterator[tuple[int, int]]) -> Iterator[bytes]:
    """What ranges of a file hold, in blocks that are all full but the last one."""
    block = bytearray()
    for offset, end in ranges:
        position = offset
        while position < end:
            data = file.read(min(FRAME_BYTES - len(block), end - position), position)
            if not data:
                raise OSError(errno.EIO, "the output is shorter than it was")
            position += len(data)
            block += data
            if len(block) == FRAME_BYTES:
                yield bytes(block)
                block.clear()
    if block:
        yield bytes(block)


def _exists(directory: JobDir, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory.fd)
    except FileNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
