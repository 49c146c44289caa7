"""From a job's pipe to its output file, without a copy through this process."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import termios
from contextlib import suppress

_PIPE_BYTES = 1024 * 1024  # the most that the kernel grants without privileges; a burst of it does not block the job
_COPY_BYTES = 64 * 1024


class OutputPump:
    """A pipe and the file that its content goes to.

    The job gets the pipe's write end and never the file, so it cannot take back what it has written. `size` bytes are
    in the file; `dropped` bytes came after them and could not be kept, since writing had failed (a full disk): the job
    goes on all the same.
    """

    def __init__(self, file: int, *, splice: bool = True) -> None:
        self._splice = splice
        self.size = 0
        self.dropped = 0
        self.ended = False  # whether every process has closed the write end, so that nothing more comes
        self.file = file
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_end, False)
        with suppress(PermissionError):  # the user's share of pipe memory is used up: the usual 64 KiB do, more slowly
            fcntl.fcntl(self.read_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def close_write_end(self) -> None:
        """Leave the write end to the job, so that its last process's end is the end of the output."""
        os.close(self.write_end)

    def pump(self) -> bool:
        """Move what is in the pipe, at most one pipe full; `False` if there was nothing."""
        try:
            moved = self._drop() if self.dropped else self._keep()
        except BlockingIOError:
            return False
        self.ended = moved == 0
        return not self.ended

    def drain(self) -> None:
        """Move all that is in the pipe now. Somebody outside the job may hold the write end still, and write on."""
        queued = bytearray(4)
        fcntl.ioctl(self.read_end, termios.FIONREAD, queued)
        end = self.size + self.dropped + int.from_bytes(queued, sys.byteorder)
        while self.size + self.dropped < end and self.pump():
            pass

    def _keep(self) -> int:
        if not self._splice:
            return self._copy()
        try:
            moved = os.splice(self.read_end, self.file, _PIPE_BYTES, offset_dst=self.size)
        except BlockingIOError:
            raise
        except OSError as error:
            # EINVAL: not on this file system. Otherwise the file cannot grow; from here on all is dropped, so that what
            # is kept has no gap in it.
            return self._copy() if error.errno == errno.EINVAL else self._drop()
        self.size += moved
        return moved

    def _copy(self) -> int:
        data = os.read(self.read_end, _COPY_BYTES)
        written = 0
        with suppress(OSError):  # as above; what of this piece is not in the file is dropped
            while written < len(data):
                written += os.pwrite(self.file, data[written:], self.size + written)
        self.size += written
        self.dropped += len(data) - written
        return len(data)

    def _drop(self) -> int:
        moved = len(os.read(self.read_end, _COPY_BYTES))
        self.dropped += moved
        return moved
