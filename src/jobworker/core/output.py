"""The output of a job: which streams it is kept as, how much of it, and what of it is missing.

An offset counts the bytes that a job has written, whichever stream they went to, in the order in which they arrived;
those that could not be kept count, too. So an offset means the same byte everywhere and for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from jobworker.core.checks import aware, of_type, word, words
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.units import format_size

MIN_OUTPUT_LIMIT = 64 * 1024  # bytes: a pipe full, which is written before anybody can say stop
MAX_OUTPUT_LIMIT = 2**63 - 1  # the largest offset that there is
DEFAULT_OUTPUT_LIMIT = 10 * 1024**3
DEFAULT_OUTPUT_RESERVE = 64 * 1024**2


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

    LIMIT = "LIMIT"  # it came after the limit, with the policy DROP or STOP
    TRIMMED = "TRIMMED"  # it made room for newer output, with the policy KEEP_LAST
    DISK_FULL = "DISK_FULL"  # it could not be written


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputLimit:
    """How many bytes of output are kept, and what becomes of the job beyond. Raises `InvalidArgumentError`."""

    size: int | None = None
    policy: OverflowPolicy | None = None

    def __post_init__(self) -> None:
        if self.policy is not None:
            object.__setattr__(self, "policy", word("spec.output_limit.policy", self.policy, OverflowPolicy))
        if self.size is None:
            return
        of_type("spec.output_limit.bytes", self.size, int, "whole number of bytes")
        if self.size < MIN_OUTPUT_LIMIT:
            raise InvalidArgumentError("spec.output_limit.bytes", f"must be at least {format_size(MIN_OUTPUT_LIMIT)}")
        if self.size > MAX_OUTPUT_LIMIT:
            raise InvalidArgumentError("spec.output_limit.bytes", f"must be at most {MAX_OUTPUT_LIMIT}")


NO_OUTPUT_LIMIT = OutputLimit()  # which leaves everything to the server


def _default_limit() -> OutputLimit:
    return OutputLimit(size=DEFAULT_OUTPUT_LIMIT, policy=OverflowPolicy.KEEP_LAST)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputPolicy:
    """How much output a server keeps, all in bytes.

    `default` is the limit, with all that belongs to it, of jobs that ask for none, and `maximum` the largest that one
    may ask for. `reserve` is what output leaves free of the file system, for records. While the output of all jobs
    takes `max_state_bytes` or more of the disk, none is started. `None` bounds nothing. Raises `InvalidArgumentError`.
    """

    default: OutputLimit = field(default_factory=_default_limit)
    maximum: int | None = None
    reserve: int = DEFAULT_OUTPUT_RESERVE
    max_state_bytes: int | None = None

    def __post_init__(self) -> None:
        self.effective(self.default)

    def effective(self, asked: OutputLimit) -> OutputLimit:
        """The limit of a job that asks for this one; it leaves nothing open. Raises `InvalidArgumentError`."""
        if self.maximum is not None and asked.size is not None and asked.size > self.maximum:
            raise InvalidArgumentError(
                "spec.output_limit.bytes", f"is above the maximum of {format_size(self.maximum)} on this server"
            )
        return replace(
            self.default,
            **{name: value for name in ("size", "policy") if (value := getattr(asked, name)) is not None},
        )


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
        object.__setattr__(self, "streams", words("streams", self.streams, Stream))  # frozen for everybody else
        of_type("offset", self.offset, int, "whole number of bytes")
        of_type("times", self.times, bool, "True or False")
        if self.tail is not None:
            of_type("tail", self.tail, int, "whole number of lines")
        for name, time in (("since", self.since), ("until", self.until)):
            if time is not None:
                aware(name, time)
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
