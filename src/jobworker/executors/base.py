"""What the worker needs of a place where jobs run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol

from jobworker.core.job import Job, JobEnd, StopRequest
from jobworker.core.limits import Limits
from jobworker.core.output import Chunk, Gap, Stream
from jobworker.core.usage import Usage
from jobworker.runtime.gaps import Extent

# Without limits it does not run; it enforces those that it can; it enforces none
CgroupMode = Literal["require", "auto", "off"]

CHUNK_BYTES = 1024 * 1024  # of output: large enough to be fast over TLS, small enough to hold one for each follower


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorInfo:
    """What a place is and what it can do; see `ServerInfo` in the API for the words.

    `cgroups` is how much of them was asked for; `missing_limits` are the limits that cannot be enforced, each with the
    reason.
    """

    name: str
    enforceable_limits: tuple[str, ...]
    process_tracking: str
    job_user: str
    cgroups: CgroupMode = "auto"
    missing_limits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a job ended, and the stop that was asked for before, if any."""

    end: JobEnd
    stop: StopRequest | None

    def of(self, job: Job) -> Job:
        """A job with this outcome."""
        return replace(
            job,
            end=self.end,
            stop=self.stop or job.stop,
            output_bytes=self.end.output_bytes,
            output_first_offset=self.end.output_first_offset,
        )


class Execution(Protocol):
    """A job that was started and has not been seen to end."""

    @property
    def start_time(self) -> datetime:
        """When its program was executed."""
        ...

    @property
    def stop(self) -> StopRequest | None:
        """The stop that is under way."""
        ...

    async def request_stop(self, stop: StopRequest) -> bool:
        """Begin a stop, which goes on by itself, or hurry one that is under way; `False` if the job has ended."""
        ...

    async def send_signal(self, number: int) -> bool:
        """Signal the process group of the job's first process; `False` if the job has ended."""
        ...

    @property
    def paused(self) -> bool:
        """Whether the job stands still."""
        ...

    @property
    def unkillable_pids(self) -> tuple[int, ...]:
        """The processes that live on although they were killed."""
        ...

    async def pause(self) -> bool:
        """Have all processes stand still, and the time limit with them; `False` if the job has ended.

        Raises `PauseNotSupportedError` where the kernel cannot do it.
        """
        ...

    async def resume(self) -> bool:
        """Let a paused job go on; `False` if it has ended."""
        ...

    async def update(self, limits: Limits, *, before: Limits) -> bool:
        """Put limits in force in place of those `before`, all or none; `False` if the job has ended.

        One at a time. Raises `LimitNotEnforceableError`, and `StoreError` if they cannot be kept.
        """
        ...

    def usage(self) -> Usage | None:
        """What the job has used up to now; `None` if it has ended. It may block, so ask `Executor.usages`."""
        ...

    async def outcome(self) -> Outcome:
        """Wait for the recorded end."""
        ...

    async def close(self) -> None:
        """Let go of the job without touching it."""
        ...


class Span(NamedTuple):
    """A part of an output that came at once: its stream is `None` if it is missing, its time in ns since the epoch."""

    offset: int
    end: int
    stream: Stream | None
    time: int


class OutputIndex(Protocol):
    """When each part of an output arrived, and from which stream."""

    def __len__(self) -> int:
        """How many spans there are now; the last one may grow still."""
        ...

    def spans(self, first: int, count: int) -> list[Span]:
        """At most so many spans, from this number on; without those of output that has made room for newer."""
        ...


class Output(Protocol):
    """The output of one job, open for reading."""

    @property
    def index(self) -> OutputIndex:
        """When each part of it arrived."""
        ...

    def extent(self) -> Extent:
        """Where it begins and ends now."""
        ...

    async def read(self, offset: int, end: int, *, final: bool) -> Chunk | Gap | None:
        """The next piece from an offset to at most `end`; `None` where the output ends for now.

        With `final`, nothing more comes before `end`: what is not there is a gap.
        """
        ...

    async def changed(self) -> None:
        """Wait until there may be more than at the last look. It may return for nothing."""
        ...

    def wake(self) -> None:
        """Make `changed` return: the job has ended."""
        ...

    def close(self) -> None:
        """Let go of the output."""
        ...


class OutputForm(StrEnum):
    """What the output of an ended job has been made of."""

    RAW = "RAW"
    COMPRESSED = "COMPRESSED"
    ARCHIVED = "ARCHIVED"


class KeptOutput(NamedTuple):
    """How an output is kept, and how many bytes of the disk it takes here."""

    form: OutputForm
    disk_bytes: int


class Executor(Protocol):
    """A place where jobs run, and where their output is kept until it is removed."""

    @property
    def info(self) -> ExecutorInfo:
        """What it is."""
        ...

    def new_id(self) -> str:
        """The id for a job that is to be started; one that is not, after all, has to be removed."""
        ...

    async def start(self, job: Job) -> Execution:
        """Run a job, whose id is a new one, with the limits of `job.limits`.

        Raises `CommandNotStartedError` and `LimitNotEnforceableError`, after which nothing of it is left; so does a
        cancellation.
        """
        ...

    async def usages(self, executions: Sequence[Execution]) -> list[Usage | None]:
        """What some of its jobs have used up to now, in their order; `None` for those that have ended."""
        ...

    async def known_ids(self) -> set[str]:
        """Ids of all jobs of which something is kept here."""
        ...

    async def recover(self, job_id: str) -> tuple[Job, Execution | None] | None:
        """What became of a job while no daemon was there.

        The job as its own records tell it, with the execution to adopt if it has not ended; `None` if there never was
        one that ran, in which case nothing of it is left either. Raises `ValueError` for records that cannot be read.
        """
        ...

    def open_output(self, job_id: str, *, indexed: bool) -> Output:
        """The output of a job, for one who waits for bytes or for spans of the index. Raises `FileNotFoundError`."""
        ...

    def output_extent(self, job_id: str) -> Extent:
        """Where the output begins and ends now; nothing if nothing is kept of the job."""
        ...

    async def output_extents(self, job_ids: Sequence[str]) -> list[Extent]:
        """As `output_extent`, of many, without keeping others waiting. Raises `OSError`."""
        ...

    async def kept_outputs(self, job_ids: Sequence[str]) -> list[KeptOutput]:
        """How the outputs of ended jobs are kept, in their order."""
        ...

    async def compress_output(self, job_id: str) -> None:
        """Have the output of an ended job take less room; nobody who reads it notices.

        Raises `OSError`, after which it is as it was.
        """
        ...

    async def archive_output(self, job_id: str) -> None:
        """Move the output of an ended job to the archive, from where it is read on. Raises as `compress_output`."""
        ...

    async def disk_bytes(self) -> int:
        """What all that is kept of jobs takes of the disk. It looks at each of them."""
        ...

    async def remove(self, job_id: str) -> None:
        """Delete all that is kept of an ended job; one that is not there is no error.

        Raises `OutputUnavailableError` if an archive does not say that it has deleted the output; try again then.
        """
        ...
