"""A job: a command that was started, where it is and how it ended."""

from __future__ import annotations

import signal as signals
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobworker.core.checks import duration
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.limits import NO_LIMITS, Limits
from jobworker.core.output import NO_OUTPUT_LIMIT, OutputLimit
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.core.usage import Usage

DEFAULT_GRACE = timedelta(seconds=10)  # as long as Docker and Podman give
MAX_GRACE = timedelta(days=1)
_SIGNALS = frozenset(map(int, signals.valid_signals()))  # once: each time it makes a member of an enumeration of each


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRequest:
    """A stop that was asked for: by which principal, when, with which signal, and how long until the kill."""

    requested_by: str
    request_time: datetime
    signal: int = signals.SIGTERM
    grace: timedelta = DEFAULT_GRACE

    def __post_init__(self) -> None:
        check_signal("signal", self.signal)
        object.__setattr__(self, "grace", checked_grace("grace", self.grace))  # frozen for everybody else


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEnd:
    """How a job ended.

    At most one of `exit_code` (0 to 255) and `signal` is set: what became of the first process, if anybody knows.
    `output_bytes` is the offset at which the output ends, and `output_first_offset` that of its first byte that is
    kept; `output_dropped_bytes` were written and could not be kept. `usage` is `None` for a job that was lost.
    """

    cause: Cause
    end_time: datetime
    exit_code: int | None = None
    signal: int | None = None
    output_bytes: int = 0
    output_first_offset: int = 0
    output_dropped_bytes: int = 0
    usage: Usage | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job as it was when it was looked at. Times are aware UTC.

    `output_bytes` is the offset at which its output ends so far, and `output_first_offset` that of its first byte that
    is kept. `output_limit` is the one in force: what the spec asks for, else the server's default.

    `limits` are those in force: what the spec asks for, the server's defaults, and what an update has changed since.
    `paused` says that a running job stands still. `unkillable_pids` are those of its processes that live on although
    they were killed: they are in a system call that nothing interrupts.
    """

    id: str
    owner: str
    spec: JobSpec
    create_time: datetime
    request_id: str | None = None
    start_time: datetime | None = None
    stop: StopRequest | None = None
    end: JobEnd | None = None
    output_bytes: int = 0
    output_first_offset: int = 0
    output_limit: OutputLimit = NO_OUTPUT_LIMIT
    limits: Limits = NO_LIMITS
    paused: bool = False
    unkillable_pids: tuple[int, ...] = ()

    @property
    def state(self) -> JobState:
        """Where the job is; follows from its end."""
        return JobState.RUNNING if self.end is None else self.end.cause.state


def check_signal(field: str, number: int) -> None:
    """Raise `InvalidArgumentError` unless `number` is a signal's."""
    if type(number) not in (int, signals.Signals) or number not in _SIGNALS:
        raise InvalidArgumentError(field, f"{number!r} is no signal; 1 to 31 and 34 to 64 are")


def checked_grace(field: str, grace: timedelta | float) -> timedelta:
    """The time, also given in seconds, that a stopped job has. Raises `InvalidArgumentError` if it may have no such."""
    time = duration(field, grace)
    if not timedelta(0) <= time <= MAX_GRACE:
        raise InvalidArgumentError(field, f"must be 0 to {MAX_GRACE.total_seconds():.0f} seconds")
    return time


def signal_name(number: int) -> str:
    """The name of a signal, such as "SIGTERM"; "SIG36" where it has none."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def parse_signal(text: str) -> int:
    """The number of a signal given as "SIGTERM", "term" or "15". Raises `InvalidArgumentError`."""
    if text.isascii() and text.isdigit():
        number = int(text)
    else:
        name = text.upper()
        member = signals.Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}")
        if member is None:
            raise InvalidArgumentError("signal", f"{text!r} is no signal; say a name such as TERM or a number")
        number = int(member)
    check_signal("signal", number)
    return number
