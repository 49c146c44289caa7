"""A place where jobs run in memory only: its limits, pauses and ends are a test's to decide."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from jobworker.core.job import Job, JobEnd, StopRequest
from jobworker.core.limits import LIMITS, Limits
from jobworker.core.state import Cause
from jobworker.core.usage import Usage
from jobworker.executors.base import Execution, ExecutorInfo, KeptOutput, Outcome, Output, OutputForm
from jobworker.runtime.gaps import Extent

USAGE = Usage(wall_seconds=2, cpu_seconds=1, memory_bytes=5)


@dataclass
class Played:
    """A job that runs until `end` is called. `refusal` is raised by an update, which waits for `may_update`."""

    start_time: datetime = field(default_factory=lambda: datetime.now(UTC))
    stop: StopRequest | None = None
    paused: bool = False
    unkillable_pids: tuple[int, ...] = ()
    limits: list[Limits] = field(default_factory=list[Limits])
    before: list[Limits] = field(default_factory=list[Limits])
    refusal: Exception | None = None
    may_update: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Future[JobEnd] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def __post_init__(self) -> None:
        self.may_update.set()

    def end(self, cause: Cause = Cause.EXITED, usage: Usage | None = None) -> None:
        """The job has ended."""
        code = 0 if cause is Cause.EXITED else None
        self.ended.set_result(JobEnd(cause=cause, end_time=datetime.now(UTC), exit_code=code, usage=usage))

    async def request_stop(self, stop: StopRequest) -> bool:
        """End it at once."""
        if not self.ended.done():
            self.stop = stop
            self.end(Cause.STOPPED)
        return True

    async def send_signal(self, number: int) -> bool:  # noqa: ARG002 - of the protocol
        """Do nothing."""
        return not self.ended.done()

    async def pause(self) -> bool:
        """Stand still."""
        self.paused = not self.ended.done()
        return self.paused

    async def resume(self) -> bool:
        """Go on."""
        self.paused = False
        return not self.ended.done()

    async def update(self, limits: Limits, *, before: Limits) -> bool:
        """Keep the limits, or refuse them."""
        self.before.append(before)
        await self.may_update.wait()
        if self.refusal is not None:
            raise self.refusal
        self.limits.append(limits)
        return not self.ended.done()

    def usage(self) -> Usage | None:
        """Always the same."""
        return None if self.ended.done() else USAGE

    async def outcome(self) -> Outcome:
        """Wait for the end."""
        return Outcome(end=await asyncio.shield(self.ended), stop=self.stop)

    async def close(self) -> None:
        """Nothing is open."""


class Place:
    """An `Executor` that remembers what it was asked to start."""

    def __init__(self, *, enforceable: tuple[str, ...] = LIMITS, missing: tuple[tuple[str, str], ...] = ()) -> None:
        self.info = ExecutorInfo(
            name="played",
            enforceable_limits=enforceable,
            process_tracking="none",
            job_user="nobody",
            missing_limits=missing,
        )
        self.jobs: dict[str, tuple[Job, Played]] = {}

    def played(self, job: Job) -> Played:
        """The execution of a job."""
        return self.jobs[job.id][1]

    def new_id(self) -> str:
        """Any."""
        return str(uuid.uuid4())

    async def start(self, job: Job) -> Execution:
        """Run it."""
        execution = Played()
        self.jobs[job.id] = replace(job, start_time=execution.start_time), execution
        return execution

    async def usages(self, executions: Sequence[Execution]) -> list[Usage | None]:
        """What each says."""
        return [execution.usage() for execution in executions]

    async def known_ids(self) -> set[str]:
        """All that were started."""
        return set(self.jobs)

    async def recover(self, job_id: str) -> tuple[Job, Execution | None] | None:
        """The job with the limits that were last put in force."""
        job, execution = self.jobs[job_id]
        limits = execution.limits[-1] if execution.limits else job.limits
        return replace(job, limits=limits), execution

    def open_output(self, job_id: str, *, indexed: bool) -> Output:  # noqa: ARG002 - of the protocol
        """There is none."""
        raise FileNotFoundError(job_id)

    def output_extent(self, job_id: str) -> Extent:  # noqa: ARG002 - of the protocol
        """There is none."""
        return Extent()

    async def output_extents(self, job_ids: Sequence[str]) -> list[Extent]:
        """There is none."""
        return [Extent() for _ in job_ids]

    async def disk_bytes(self) -> int:
        """None."""
        return 0

    async def kept_outputs(self, job_ids: Sequence[str]) -> list[KeptOutput]:
        """Nothing is."""
        return [KeptOutput(OutputForm.RAW, 0) for _ in job_ids]

    async def compress_output(self, job_id: str) -> None:
        """There is none."""

    async def archive_output(self, job_id: str) -> None:
        """There is none."""

    async def remove(self, job_id: str) -> None:
        """Forget it."""
        self.jobs.pop(job_id, None)
