"""The output of a job: which streams it is kept as, how much of it, and what of it is missing.

An offset counts the bytes that a job has written, whichever stream they went to, in the order in which they arrived;
those that could not be kept count, too. So an offset means the same byte everywhere and for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from jobworker.core.errors import InvalidArgumentError

MIN_OUTPUT_LIMIT = 64 * 1024  # bytes: a pipe full, which is written before anybody can say stop


class OutputMode(StrEnum):
    """Whether both streams of a job are one (in the exact order of writing) or told apart (in that of arrival)."""

    COMBINED = "COMBINED"
    SPLIT = "SPLIT"


class Stream(StrEnum):
    """Where output came from."""

    COMBINED = "COMBINED"
    STDOUT = "STDOUT"
    STDERR = "STDERR"


class OverflowPolicy(StrEnum):
    """What becomes of a job whose output reaches its limit."""

    STOP = "STOP"  # it ends, with cause OUTPUT_LIMIT
    DROP = "DROP"  # the rest is discarded
    KEEP_LAST = "KEEP_LAST"  # the oldest output makes room for the newest


class GapReason(StrEnum):
    """Why output is missing."""

    LIMIT = "LIMIT"  # it came after the limit, with the policy DROP
    TRIMMED = "TRIMMED"  # it made room for newer output, with the policy KEEP_LAST
    DISK_FULL = "DISK_FULL"  # it could not be written


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputLimit:
    """How many bytes of output are kept, and what becomes of the job beyond. Raises `InvalidArgumentError`."""

    size: int | None = None
    policy: OverflowPolicy | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < MIN_OUTPUT_LIMIT:
            raise InvalidArgumentError("spec.output_limit.bytes", f"must be at least {MIN_OUTPUT_LIMIT}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Bytes of one stream, the offset of the first one and, where it was asked for, when they arrived (aware UTC)."""

    offset: int
    data: bytes
    stream: Stream = Stream.COMBINED
    time: datetime | None = None

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Output that is missing: `length` bytes from an offset on."""

    offset: int
    length: int
    reason: GapReason

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + self.length


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which part of a job's output is wanted; without anything, all of it.

    `offset` is that of the first byte; 0 is the first that is kept. `tail` counts lines from the end of what there is
    and takes the place of an offset. `streams` are those wanted, none for all; `since` and `until` bound when it
    arrived. `times` asks for the time of each chunk. Raises `InvalidArgumentError`.
    """

    offset: int = 0
    tail: int | None = None
    streams: frozenset[Stream] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    times: bool = False

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise InvalidArgumentError("offset", "must not be negative")
        if self.tail is not None and (self.tail < 0 or self.offset):
            raise InvalidArgumentError("tail", "must not be negative, and excludes an offset")
        if self.since is not None and self.until is not None and self.since > self.until:
            raise InvalidArgumentError("until", "is before since")

    @property
    def raw(self) -> bool:
        """Whether the bytes alone tell what belongs to it, without the index of their times and streams."""
        return not (self.streams or self.since or self.until or self.times)
