"""The audit log: a JSON line for each call, saying who did what to which job and how that went.

Output, environments, arguments and the texts of errors never get into it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import select
import stat
import sys
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

log = logging.getLogger(__name__)

MAX_TEXT_CHARS = 100  # of what callers choose; a job id has 36, the longest RPC name 62
# Not blocking, so that a FIFO without a reader is an error
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRecord:
    """One call. `principal` and `serial` are unset if it was not known who called, `job_id` if it was about no job."""

    time: datetime
    rpc: str
    peer: str
    code: str
    seconds: float
    principal: str | None = None
    serial: str | None = None
    job_id: str | None = None

    def line(self) -> str:
        """The record as a line of JSON, ASCII only: nothing in it can pretend to be another line."""
        return json.dumps(
            {
                "time": self.time.astimezone(UTC).isoformat(timespec="milliseconds"),
                "principal": self.principal,
                "serial": self.serial,
                "peer": self.peer,
                "rpc": self.rpc[:MAX_TEXT_CHARS],
                "job": self.job_id and self.job_id[:MAX_TEXT_CHARS],
                "code": self.code,
                "seconds": round(self.seconds, 6),
            }
        )


class _Target(Protocol):
    """Where lines go. One that `may_wait` for a reader is no file."""

    may_wait: bool

    def fileno(self) -> int:
        """The descriptor that is written to."""
        ...

    def write(self, line: str) -> None:
        """Write a line. Raises `OSError`."""
        ...


class AuditLog:
    """Writes records in the order in which they come. One that cannot be written is logged, and its call goes on.

    A pipe or a socket whose reader does not read keeps calls waiting, those that come as well as those that are over,
    and nothing else: no line is lost, no call is answered before its line is written, and streams go on.
    """

    def __init__(self, target: _Target | None) -> None:
        self._target = target
        self._waiting: deque[str] = deque()
        self._caught_up = asyncio.Event()

    @classmethod
    def to(cls, target: Path | Literal["stderr", "off"]) -> AuditLog:
        """The audit log of a setting. Raises `OSError` if the file cannot be written, as a FIFO that nobody reads."""
        match target:
            case "stderr":
                return cls(_Stderr())
            case "off":
                return cls(None)
            case Path():
                return cls(_File(target))

    async def caught_up(self) -> None:
        """Wait until no line waits for the reader."""
        if self._waiting:
            await self._caught_up.wait()

    async def write(self, record: AuditRecord) -> None:
        """Add a line. It is added, too, if the wait for the reader is cancelled."""
        if self._target is None:
            return
        line = f"{record.line()}\n"
        if not self._waiting and _takes_a_line(self._target):
            self._put(self._target, line)
            return
        self._waiting.append(line)
        if len(self._waiting) == 1:
            self._caught_up.clear()
            self._watch(self._target)
        await self._caught_up.wait()

    def close(self) -> None:
        """Log the lines that still wait, if there is somebody to read that."""
        while self._waiting and _takes_a_line(_Stderr()):
            log.error("cannot write to the audit log (nobody reads it): %s", self._waiting.popleft().rstrip())

    def _watch(self, target: _Target) -> None:
        descriptor = target.fileno()
        loop = asyncio.get_running_loop()

        def go_on() -> None:
            loop.remove_writer(descriptor)  # first, since a target may be opened anew
            while self._waiting and _takes_a_line(target):
                self._put(target, self._waiting.popleft())
            if self._waiting:
                self._watch(target)
            else:
                self._caught_up.set()

        loop.add_writer(descriptor, go_on)

    def _put(self, target: _Target, line: str) -> None:
        try:
            target.write(line)
        except OSError as error:
            log.error("cannot write to the audit log (%s): %s", error.strerror, line.rstrip())  # noqa: TRY400 -- a full disk has no stack worth showing


def _takes_a_line(target: _Target) -> bool:
    """Whether a write of a line would not wait for a reader: a pipe that has room at all has room for a page."""
    if not target.may_wait:
        return True
    poll = select.poll()
    poll.register(target.fileno(), select.POLLOUT)
    return bool(poll.poll(0))


class _Stderr:
    def __init__(self) -> None:
        self.may_wait = _may_wait(sys.stderr.fileno())

    def fileno(self) -> int:
        return sys.stderr.fileno()

    def write(self, line: str) -> None:
        sys.stderr.write(line)


class _File:
    """A file that only grows, and that is opened anew when somebody has moved it away (as logrotate does)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd, self._identity = self._opened()

    def fileno(self) -> int:
        return self._fd

    def write(self, line: str) -> None:
        if self._was_moved():
            before = self._fd
            self._fd, self._identity = self._opened()
            os.close(before)
        os.write(self._fd, line.encode())

    def _opened(self) -> tuple[int, tuple[int, int]]:
        try:
            fd = os.open(self._path, _FLAGS, 0o600)
        except OSError as error:
            if error.errno == errno.ENXIO:  # "no such device or address", it would say
                raise OSError(errno.ENXIO, "nobody reads this FIFO", str(self._path)) from None
            raise
        os.set_blocking(fd, True)
        self.may_wait = _may_wait(fd)
        return fd, _identity(os.fstat(fd))

    def _was_moved(self) -> bool:
        try:
            return _identity(self._path.stat()) != self._identity
        except FileNotFoundError:
            return True


def _may_wait(fd: int) -> bool:
    return not stat.S_ISREG(os.fstat(fd).st_mode)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
