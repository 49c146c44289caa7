"""A job of this machine that runs."""

from __future__ import annotations

import errno
from datetime import UTC, datetime

from jobworker.core.errors import PauseNotSupportedError, StoreError
from jobworker.core.job import Job, StopRequest
from jobworker.core.limits import Limits
from jobworker.core.usage import Usage
from jobworker.executors.base import Outcome
from jobworker.executors.directories import JobDirectories, outcome_from
from jobworker.executors.place import Place
from jobworker.executors.supervision import Supervision, refusal
from jobworker.executors.supervisors import Supervisors
from jobworker.executors.threads import Threads
from jobworker.linux import usage
from jobworker.runtime import jobdir


class LocalExecution:
    """An `Execution` by way of the job's supervisor, its cgroup and its directory."""

    def __init__(  # noqa: PLR0913 - what a job that runs is and needs, all by keyword
        self,
        *,
        job: Job,
        started: datetime,
        cgroup: str | None,
        supervision: Supervision,
        supervisors: Supervisors,
        directories: JobDirectories,
        place: Place,
        threads: Threads,
    ) -> None:
        self._job = job
        self._supervision = supervision
        self._supervisors = supervisors
        self._directories = directories
        self._place = place
        self._threads = threads
        self._cgroup = cgroup
        self._stop: StopRequest | None = None
        self.start_time = started

    @property
    def stop(self) -> StopRequest | None:
        """The stop that is under way."""
        return self._supervision.stop or self._stop

    async def request_stop(self, stop: StopRequest) -> bool:
        """Begin a stop, which goes on by itself, or hurry one that is under way; `False` if the job has ended."""
        return await self._supervision.request_stop(stop)

    async def send_signal(self, number: int) -> bool:
        """Signal the process group of the job's first process; `False` if the job has ended."""
        return await self._supervision.send_signal(number)

    @property
    def paused(self) -> bool:
        """Whether the job stands still."""
        return self._supervision.paused

    @property
    def unkillable_pids(self) -> tuple[int, ...]:
        """The processes that live on although they were killed."""
        return self._supervision.unkillable_pids

    async def pause(self) -> bool:
        """Have the job stand still; see `Execution.pause`."""
        return await self._set_paused(paused=True)

    async def resume(self) -> bool:
        """Let a paused job go on; `False` if it has ended."""
        if self._cgroup is None:  # it goes on
            return not self._supervision.over.done()
        return await self._set_paused(paused=False)

    async def update(self, limits: Limits, *, before: Limits) -> bool:
        """Put limits in force in place of those `before`; see `Execution.update`."""
        writes = await self._threads.run(self._place.writes, limits, cwd=self._job.spec.cwd, before=before)
        try:
            return await self._supervision.set_limits(limits, writes)
        except OSError as error:
            if error.filename in (None, jobdir.RECORDS) and error.errno != errno.ENOSYS:
                raise StoreError(f"the limits of the job cannot be kept: {error.strerror}") from None
            raise refusal(error.filename or "", error.errno or errno.EIO) from None

    def usage(self) -> Usage | None:
        """What the job has used up to now; see `Execution.usage`."""
        wall_seconds = max(0.0, (datetime.now(UTC) - self.start_time).total_seconds())  # the clock may be set back
        if self._supervision.over.done():
            return None
        if self._cgroup is None:
            return Usage(wall_seconds=wall_seconds)
        used = usage.read(self._cgroup, wall_seconds)
        return None if used.cpu_seconds is None else used  # every group tells it, so this one has just gone

    async def _set_paused(self, *, paused: bool) -> bool:
        if self._cgroup is None:
            raise PauseNotSupportedError
        try:
            return await self._supervision.set_paused(paused=paused)
        except OSError as error:
            raise PauseNotSupportedError(f"the job cannot be paused: {error.strerror}") from None

    async def outcome(self) -> Outcome:
        """Wait for the recorded end."""
        outcome = await self._told_outcome()
        if outcome is None:  # the supervisor has died, or has only dropped the connection
            self._stop = self.stop  # whoever buries a job has not heard of it
            self._supervision = await self._reattach()
            outcome = await self._told_outcome()
        if outcome is None:
            raise OSError(errno.EIO, "the end of the job has not been recorded; the spawner's log says why")
        return outcome

    async def close(self) -> None:
        """Let go of the job without touching it."""
        self._supervision.close()

    async def _told_outcome(self) -> Outcome | None:
        """The end as the supervisor tells it, or has recorded it before it has gone."""
        record = await self._supervision.over
        if record is None or "end" not in record:  # of an older release's supervisor
            return self._directories.outcome(self._job.id)
        return outcome_from(record)

    async def _reattach(self) -> Supervision:
        """A connection to the job's supervisor, or to the one that buries the job."""
        with self._directories.open(self._job.id) as directory:
            return await self._supervisors.find(directory) or await self._supervisors.bury(directory)
