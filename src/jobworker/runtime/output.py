"""From a job's pipes to its output file, without a copy through this process."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import termios
import time
from contextlib import suppress

from jobworker.core.output import GapReason, OutputMode, OverflowPolicy, Stream
from jobworker.core.records import Record
from jobworker.runtime import jobdir
from jobworker.runtime.gaps import GapWriter
from jobworker.runtime.index import KINDS, MISSING, IndexWriter
from jobworker.runtime.jobdir import JobDir
from jobworker.runtime.segments import HoledFile, Segments

_PIPE_BYTES = 1024 * 1024  # the most that the kernel grants without privileges; a burst of it does not block the job
_COPY_BYTES = 64 * 1024

# A ring gives back an eighth of its limit at once, or, if that takes no more than a hole, so many bytes.
_RING_PART = 8
_PAGE = 4096
_MAX_HOLE = 1024 * 1024
# Between two looks at what is free of the disk at most a part of that is written, but for so many bytes: there are
# other jobs.
_LOOK_PART = 16
_LOOK_BYTES = 64 * 1024
FULL_RETRY = 0.1  # seconds between looks at a full disk, each at the arrival of output


class OutputPipe:
    """A pipe that a job writes to: it gets the write end, and never the file, so it cannot take back what it wrote."""

    def __init__(self) -> None:
        self.kind = 0  # an index in `index.KINDS`
        self.ended = False  # whether every process has closed the write end, so that nothing more comes
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_end, False)
        with suppress(PermissionError):  # the user's share of pipe memory is used up: the usual 64 KiB do, more slowly
            fcntl.fcntl(self.read_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def close_write_end(self) -> None:
        """Leave the write end to the job, so that its last process's end is the end of the output."""
        os.close(self.write_end)

    def queued(self) -> int:
        """Bytes that are in the pipe now."""
        queued = bytearray(4)
        fcntl.ioctl(self.read_end, termios.FIONREAD, queued)
        return int.from_bytes(queued, sys.byteorder)


def open_pipes(mode: str) -> list[OutputPipe]:
    """One for both streams, or one each."""
    if mode == OutputMode.COMBINED:
        return [OutputPipe()]
    pipes = [OutputPipe(), OutputPipe()]
    for pipe, stream in zip(pipes, (Stream.STDOUT, Stream.STDERR), strict=True):
        pipe.kind = KINDS.index(stream)
    return pipes


class OutputPump:
    """Moves what comes through pipes into the output file of a directory.

    `size` bytes have come, and `dropped` of them could not be kept: the job goes on all the same. `first` is the offset
    of the first one that is kept still. `over_limit` says that more has come than may be kept.
    """

    def __init__(self, directory: JobDir, output: Record, *, sync: bool = False) -> None:
        """For `output` see `protocol`; with `sync`, no zeros are taken for output after a power cut."""
        self._sync = sync
        self._limit: int | None = output["limit"]
        self._ring = output["policy"] == OverflowPolicy.KEEP_LAST
        self._reserve: int = output["reserve"]
        self._splice: bool = output["splice"]
        block = (self._limit or 0) // _RING_PART // _PAGE * _PAGE
        in_segments = self._ring and not output["holes"]
        self._index = IndexWriter(directory, segment=block if in_segments else None)
        self._gaps = GapWriter(directory)
        self._file: HoledFile | Segments
        if in_segments:
            self._file = Segments(jobdir.OUTPUT, block, dir_fd=directory.fd)
        else:
            self._file = HoledFile(directory.create_output(), min(_MAX_HOLE, block))
        self._settled = 0  # `size` at which the index was told last what is missing
        self._until_look = 0  # bytes
        self._full = False
        self._try_at = 0.0  # time.monotonic()
        self.size = 0
        self.dropped = 0
        self.first = 0
        self.over_limit = False

    def pump(self, pipe: OutputPipe) -> bool:
        """Move what is in a pipe, at most one pipe full; `False` if there was nothing."""
        try:
            moved = self._move(pipe)
        except BlockingIOError:
            return False
        pipe.ended = moved == 0
        return not pipe.ended

    def drain(self, pipe: OutputPipe) -> None:
        """Move all that is in a pipe now. Somebody outside the job may hold the write end still, and write on."""
        end = self.size + pipe.queued()
        while self.size < end and self.pump(pipe):
            pass

    def settle(self) -> bool:
        """Write what could not be written of index and gaps; whether that is possible."""
        try:
            self._index.flush()
            if self._gaps.open is not None:
                self._gaps.flush()
                if self._settled != self.size:  # else each try would take room for one more record
                    self._settled = self.size
                    self._index.add(self.size, MISSING)
        except OSError:
            return False
        return True

    def sync(self) -> None:
        """Have it all survive a power cut. Raises `OSError`."""
        self._file.sync()
        self._index.sync()
        self._gaps.sync()

    def _move(self, pipe: OutputPipe) -> int:
        room = _PIPE_BYTES if self._limit is None else self._limit
        if not self._ring and self._limit is not None:
            room -= self.size - self.dropped
        if room <= 0:
            moved = self._drop(pipe, GapReason.LIMIT)
            self.over_limit = self.over_limit or moved > 0
            return moved
        if (on_disk := self._room_on_disk()) <= 0:
            return self._drop(pipe, GapReason.DISK_FULL)
        return self._keep(pipe, min(room, on_disk, self._file.room(self.size)))

    def _keep(self, pipe: OutputPipe, room: int) -> int:
        if not self._splice:
            return self._copy(pipe, min(room, _COPY_BYTES))
        try:
            moved = os.splice(pipe.read_end, self._file.at(self.size), room, offset_dst=self.size)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.EINVAL:  # not on this file system
                self._splice = False
                return self._keep(pipe, room)
            self._fill()
            return self._drop(pipe, GapReason.DISK_FULL)
        self._kept(moved, pipe.kind)
        return moved

    def _copy(self, pipe: OutputPipe, room: int) -> int:
        data = os.read(pipe.read_end, room)
        written = 0
        try:
            file = self._file.at(self.size)
            while written < len(data):
                written += os.pwrite(file, data[written:], self.size + written)
        except OSError:
            self._fill()
        self._kept(written, pipe.kind)
        self._miss(len(data) - written, GapReason.DISK_FULL)
        return len(data)

    def _kept(self, length: int, kind: int) -> None:
        if not length:
            return
        self._gaps.close()
        self.size += length
        self._until_look -= length
        try:
            self._index.add(self.size, kind)
            if self._ring and self._limit is not None and self.size - self.first > self._limit + self._file.block:
                self._trim(self._file.boundary(self.size - self._limit))
        except OSError:  # what could not be said of it has to be, before more can be kept
            self._fill()

    def _trim(self, first: int) -> None:
        """Give back what is before an offset. It is told first, so that nobody takes the zeros for output."""
        if first == self.first:  # the oldest segment is needed still
            return
        self._gaps.trim(first)
        if self._sync:
            self._gaps.sync()
        self._file.free(first)
        self.first = first
        self._index.trim(first)

    def _drop(self, pipe: OutputPipe, reason: GapReason) -> int:
        moved = len(os.read(pipe.read_end, _COPY_BYTES))
        self._miss(moved, reason)
        return moved

    def _miss(self, length: int, reason: GapReason) -> None:
        if length:
            self._gaps.grow(self.size, length, reason)
            self.size += length
            self.dropped += length
            with suppress(OSError):  # tried again
                self._gaps.flush()

    def _fill(self) -> None:
        """The disk is full: nothing is kept until there is room again."""
        self._full = True
        self._try_at = time.monotonic() + FULL_RETRY

    def _room_on_disk(self) -> int:
        """Bytes that may be written now, as far as a look now and then can tell."""
        if self._full:
            if time.monotonic() < self._try_at:
                return 0
            if self._look() < _LOOK_BYTES or not self.settle():  # which takes of the reserve if there is no room
                self._fill()
                return 0
            self._full = False
        elif self._until_look <= 0 and self._look() <= 0:
            self._fill()
        return self._until_look

    def _look(self) -> int:
        """Look at what is free of the disk beyond the reserve; bytes that may be written before the next look."""
        if not self._reserve:
            self._until_look = _PIPE_BYTES
        else:
            there = os.fstatvfs(self._file.fd)
            free = there.f_bavail * there.f_frsize - self._reserve
            self._until_look = min(free, _PIPE_BYTES, max(free // _LOOK_PART, _LOOK_BYTES))
        return self._until_look
