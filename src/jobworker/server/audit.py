"""The audit log: a JSON line for each call, saying who did what to which job and how that went.

Output, environments, arguments and the texts of errors never get into it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)

MAX_TEXT_CHARS = 100  # of what callers choose; a job id has 36, the longest RPC name 62
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


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


class AuditLog:
    """Writes records. A record that cannot be written is logged instead, and the call goes on."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    @classmethod
    def to(cls, target: Path | Literal["stderr", "off"]) -> AuditLog:
        """The audit log of a setting. Raises `OSError` if the file cannot be written."""
        match target:
            case "stderr":
                return cls(_write_to_stderr)
            case "off":
                return cls(lambda _line: None)
            case Path():
                return cls(_File(target).write)

    def write(self, record: AuditRecord) -> None:
        """Add a line."""
        line = record.line()
        try:
            self._write(f"{line}\n")
        except OSError as error:
            log.error("cannot write to the audit log (%s): %s", error.strerror, line)  # noqa: TRY400 -- a full disk has no stack worth showing


def _write_to_stderr(line: str) -> None:
    sys.stderr.write(line)


class _File:
    """A file that only grows, and that is opened anew when somebody has moved it away (as logrotate does)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd, self._identity = self._opened()

    def write(self, line: str) -> None:
        if self._was_moved():
            before = self._fd
            self._fd, self._identity = self._opened()
            os.close(before)
        os.write(self._fd, line.encode())

    def _opened(self) -> tuple[int, tuple[int, int]]:
        fd = os.open(self._path, _FLAGS, 0o600)
        return fd, _identity(os.fstat(fd))

    def _was_moved(self) -> bool:
        try:
            return _identity(self._path.stat()) != self._identity
        except FileNotFoundError:
            return True


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino
