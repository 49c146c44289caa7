"""Start, watch and stop jobs: the truth about them, wherever they run and whatever remembers them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from signal import SIGTERM
from types import TracebackType
from typing import Self

from jobworker.core.errors import (
    InvalidArgumentError,
    JobEndedError,
    JobNotEndedError,
    JobNotFoundError,
    OffsetOutOfRangeError,
    OutputUnavailableError,
    ServerUnavailableError,
    StoreError,
)
from jobworker.core.job import DEFAULT_GRACE, Job, StopRequest, check_signal
from jobworker.core.limit_policy import NO_POLICY, LimitPolicy
from jobworker.core.limits import Limits
from jobworker.core.output import Chunk, Gap, OutputPolicy, Selection
from jobworker.core.query import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, JobFilter, JobPage
from jobworker.core.spec import JobSpec
from jobworker.core.state import JobState
from jobworker.core.usage import Usage
from jobworker.executors.base import Executor, OutputForm
from jobworker.store.base import JobStore
from jobworker.worker import limits as limits_
from jobworker.worker import retention as retention_
from jobworker.worker.live import LiveJob
from jobworker.worker.quotas import JobCounts, Quotas
from jobworker.worker.recovery import RecoveryReport, recover
from jobworker.worker.retention import Retention
from jobworker.worker.running import RunningJobs
from jobworker.worker.space import Space
from jobworker.worker.start import Starts
from jobworker.worker.stream import is_indexed, pieces, range_of
from jobworker.worker.tasks import Tasks

RETENTION_INTERVAL = 3600.0  # seconds
STOP_ALL_GRACE = timedelta(seconds=10)
STOP_ALL_PATIENCE = 20.0  # seconds; after the grace jobs are killed, which is a matter of milliseconds

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

__all__ = ["RecoveryReport", "Worker", "WorkerInfo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerInfo:
    """What a worker is and what it can do; see `ServerInfo` in the API for the words."""

    executor: str
    enforceable_limits: tuple[str, ...]
    process_tracking: str
    durability: str
    job_user: str
    cgroups: str
    missing_limits: tuple[tuple[str, str], ...]


class Worker:
    """Jobs of many owners. It knows owners, not roles: who may reach which job is for its caller to decide.

    An async context manager: entering it recovers what an earlier worker has left (`recovery` says what was found),
    leaving it leaves the jobs running, unless it was told to stop them.
    """

    def __init__(  # noqa: PLR0913 - the parts and settings of a worker, all but two by keyword
        self,
        executor: Executor,
        store: JobStore,
        *,
        durability: str,
        quotas: Quotas | None = None,
        retention: Retention | None = None,
        output: OutputPolicy | None = None,
        stop_jobs_on_exit: bool = False,
        on_packing_error: Callable[[str, OSError], None] = lambda _job_id, _error: None,
    ) -> None:
        self._executor = executor
        self._store = store
        self._durability = durability
        self._quotas = quotas or Quotas()
        self._retention = retention or Retention()
        self._stop_jobs_on_exit = stop_jobs_on_exit
        self._on_packing_error = on_packing_error
        self._tasks = Tasks()
        self._running = RunningJobs(executor, store, JobCounts(self._quotas), self._tasks)
        output = output or OutputPolicy()
        space = Space(executor, output.max_state_bytes, self._make_room)
        self._starts = Starts(executor, store, self._running, self._tasks, output, space)
        self._entered = False
        self.recovery = RecoveryReport()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        try:
            self.recovery = await recover(self._executor, self._store, self._running.adopt)
        except BaseException:
            await self._leave()
            raise
        self._tasks.watch(self._retain)
        self._tasks.watch(self._pack)
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered = False
        if self._stop_jobs_on_exit:
            await self._stop_all()
        await self._leave()

    @property
    def info(self) -> WorkerInfo:
        """What this worker is and can do."""
        executor = self._executor.info
        return WorkerInfo(
            executor=executor.name,
            enforceable_limits=executor.enforceable_limits,
            process_tracking=executor.process_tracking,
            durability=self._durability,
            job_user=executor.job_user,
            cgroups=executor.cgroups,
            missing_limits=executor.missing_limits,
        )

    async def start(
        self, spec: JobSpec, owner: str, request_id: str | None = None, *, limit_policy: LimitPolicy = NO_POLICY
    ) -> Job:
        """Start a job; when this returns, its program has been executed and the start is durable.

        `limit_policy` says which limits it gets without asking, and which are too high for it. A limit that is asked
        for is in force or an error; a default or a maximum that cannot be enforced is left out, as `limits` of the job
        shows, and `info` says why.

        With a `request_id` (a UUID), a repeated call of the same owner gives the job that the first one started. A
        start goes on when its caller is cancelled. Raises `InvalidArgumentError`, `LimitNotEnforceableError`,
        `QuotaExceededError`, `RequestIdReusedError`, `CommandNotStartedError`, `StoreError`, and
        `ServerUnavailableError` once the worker has been left, or while it cannot tell what all jobs take of the disk;
        after any of them nothing of the job is left.
        """
        if not self._entered:
            raise ServerUnavailableError("this worker takes no more jobs")
        self._quotas.check_size(spec)
        return await self._starts.start(spec, owner, request_id, limit_policy)

    async def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """One job as it is now.

        Raises `JobNotFoundError`; with `owner`, for the job of somebody else as for one that is not there, after the
        same work.
        """
        if not _ID.fullmatch(job_id):
            raise JobNotFoundError(job_id)
        job = self._running.known(job_id)
        if job is None or owner not in (None, job.owner):
            job = await self._store.get(job_id, owner=owner)
        if job is None or job.start_time is None:
            raise JobNotFoundError(job_id)
        return self._running.as_it_is(job)

    async def list(
        self, where: JobFilter | None = None, *, page_size: int = DEFAULT_PAGE_SIZE, page_token: str | None = None
    ) -> JobPage:
        """A page of jobs, newest first, at most `MAX_PAGE_SIZE`. Raises `InvalidArgumentError`."""
        if page_size < 1:
            raise InvalidArgumentError("page_size", f"must be 1 to {MAX_PAGE_SIZE}")
        page = await self._store.page(where or JobFilter(), size=min(page_size, MAX_PAGE_SIZE), token=page_token)
        return replace(page, jobs=tuple(map(self._running.as_it_is, page.jobs)))

    async def stop(self, job_id: str, *, by: str, grace: timedelta = DEFAULT_GRACE, signal: int = SIGTERM) -> Job:
        """End a job: `signal` to all its processes, then, after `grace`, a kill. Returns when it has ended.

        A stop goes on when its caller is cancelled, and when this process dies. Stopping a stopped job returns it
        again. Raises `JobNotFoundError`, `InvalidArgumentError`, and `JobEndedError` if it ended otherwise.
        """
        stop = StopRequest(requested_by=by, request_time=datetime.now(UTC), signal=signal, grace=grace)
        job = await self.get(job_id)
        if (live := self._running.get(job_id)) is not None:
            await live.execution.request_stop(stop)
            await live.ended.wait()
            job = live.job
        if job.state is not JobState.STOPPED:
            raise JobEndedError(job_id, action="stop", state=job.state)
        return job

    async def signal(self, job_id: str, number: int) -> None:
        """Signal the process group of a job's first process.

        Raises `JobNotFoundError`, `JobEndedError` and `InvalidArgumentError`.
        """
        check_signal("signal", number)
        await self._ask(job_id, "signal", lambda live: live.execution.send_signal(number))

    async def pause(self, job_id: str) -> Job:
        """Have all processes of a job stand still, and its time limit with them; pausing a paused one changes nothing.

        Raises `JobNotFoundError`, `JobEndedError` and `PauseNotSupportedError`.
        """
        return await self._ask(job_id, "pause", lambda live: live.execution.pause())

    async def resume(self, job_id: str) -> Job:
        """Let a paused job go on. Raises `JobNotFoundError` and `JobEndedError`."""
        return await self._ask(job_id, "resume", lambda live: live.execution.resume())

    async def update(
        self,
        job_id: str,
        limits: Limits,
        names: Collection[str] | None = None,
        *,
        limit_policy: LimitPolicy = NO_POLICY,
    ) -> Job:
        """Change limits of a running job, all or none: those of `names`, by default those that are set.

        One that is not set becomes what a new job would get. Raises `JobNotFoundError`, `JobEndedError`,
        `InvalidArgumentError`, `LimitNotEnforceableError` and `StoreError`; the former limits stay in force then.
        """
        names = limits.requested() if names is None else names

        async def put_in_force(live: LiveJob) -> bool:
            async with live.updating:
                updated = limits_.after_update(live.job.limits, limits, names, limit_policy, self._executor.info)
                if not await live.execution.update(updated, before=live.job.limits):
                    return False
                live.limit(updated)
                self._running.note(live)
                return True

        # It goes on when its caller is cancelled: what is in force and what is remembered must not come apart.
        return await asyncio.shield(self._tasks.start(self._ask, job_id, "update", put_in_force))

    async def usage(self, job_id: str) -> Usage:
        """What a job has used up to now or, once it has ended, in all.

        Raises `JobNotFoundError`, and `JobEndedError` where nobody knows what it had used.
        """
        job = await self.get(job_id)
        if (live := self._running.get(job_id)) is not None:
            if (usage := (await self.usages([job_id])).get(job_id)) is not None:
                return usage
            await live.ended.wait()
            job = live.job
        if job.end is None or job.end.usage is None:
            raise JobEndedError(job_id, action="tell the usage of", state=job.state)
        return job.end.usage

    async def usages(self, job_ids: Iterable[str]) -> dict[str, Usage]:
        """What those of these jobs that run have used up to now, by their ids."""
        lives = [live for job_id in job_ids if (live := self._running.get(job_id)) is not None]
        found = await self._executor.usages([live.execution for live in lives])
        return {live.job.id: usage for live, usage in zip(lives, found, strict=True) if usage is not None}

    async def wait(self, job_id: str) -> Job:
        """Wait for a job's end. Raises `JobNotFoundError`."""
        job = await self.get(job_id)
        if (live := self._running.get(job_id)) is not None:
            await live.ended.wait()
            job = live.job
        return job

    async def stream(
        self, job_id: str, selection: Selection | int = 0, *, follow: bool = True
    ) -> AsyncGenerator[Chunk | Gap, None]:
        """A selection of the output, or all from an offset on; with `follow`, also what comes until the job has ended.

        Chunks have at most `CHUNK_BYTES`: large ones where there is backlog, what there is where not. Where output is
        missing there is a gap. With `tail` or `since` the first chunk is empty: its offset tells where the selection
        begins; so is the last one where what comes last is not wanted: it tells where that ends. Raises
        `JobNotFoundError`, and `OffsetOutOfRangeError` for an offset past the end, below 0 or, unless it is 0, before
        the first byte that is kept, and `OutputUnavailableError`.
        """
        job = await self.get(job_id)
        live = self._running.get(job_id)
        wanted = Selection(offset=max(0, selection)) if isinstance(selection, int) else selection
        try:
            output = self._executor.open_output(job_id, indexed=is_indexed(job, wanted))
        except FileNotFoundError:  # it has been removed since
            raise JobNotFoundError(job_id) from None
        if live is not None:
            live.follow(output)
        try:
            first, end = range_of(output, job)
            offset = selection if isinstance(selection, int) else selection.offset
            if offset and not first <= offset <= end:
                raise OffsetOutOfRangeError(job_id, offset=offset, first=first, end=end)
            async for piece in pieces(output, job, wanted, live if follow else None):
                yield piece
        finally:
            if live is not None:
                live.unfollow(output)
            output.close()

    async def remove(self, job_id: str) -> None:
        """Forget an ended job and delete its output.

        Raises `JobNotFoundError`, `JobNotEndedError`, and `OutputUnavailableError` if an archive does not delete it.
        """
        job = await self.get(job_id)
        if job.end is None:
            raise JobNotEndedError(job_id, action="remove")
        told = self._running.known(job_id) is None  # else the store may be told of the end at any moment
        # The directory first: a row without one is forgotten at the next start, a directory without a row comes back.
        await self._executor.remove(job_id)
        await self._store.remove(job_id)
        self._running.forget(job_id)  # not before: the end is not in the store
        if not told:
            await self._store.remove(job_id)

    # Act

    async def _ask(self, job_id: str, action: str, ask: Callable[[LiveJob], Awaitable[bool]]) -> Job:
        """Ask something of a running job, and give what it is then."""
        job = await self.get(job_id)
        if (live := self._running.get(job_id)) is not None:
            if await ask(live):
                return self._running.as_it_is(live.job)
            await live.ended.wait()
            job = live.job
        raise JobEndedError(job_id, action=action, state=job.state)

    async def _retain(self) -> None:
        while True:
            await self._remove_expired(archived=True)
            await asyncio.sleep(RETENTION_INTERVAL)  # ages grow with the clock; there is no event to wait for

    async def _make_room(self) -> None:
        await self._remove_expired(archived=False)  # which would take its time, and gives no room here

    async def _remove_expired(self, *, archived: bool) -> None:
        with suppress(StoreError, OSError):  # nothing is lost by trying again later
            extents = await self._executor.output_extents([live.job.id for live in self._running])
            running = sum(extent.kept for extent in extents)
            async for job_id, form in retention_.expired(
                self._store, self._executor, self._retention, datetime.now(UTC), running
            ):
                if form is OutputForm.ARCHIVED and not archived:
                    continue
                try:
                    await self._executor.remove(job_id)
                    await self._store.remove(job_id)
                except OutputUnavailableError:
                    archived = False  # nobody waits for an archive that does not answer more than once

    async def _pack(self) -> None:
        while True:
            with suppress(StoreError, OSError):  # nothing is lost by trying again later
                await retention_.pack(
                    self._store, self._executor, self._retention, datetime.now(UTC), self._on_packing_error
                )
            await asyncio.sleep(RETENTION_INTERVAL)  # as above

    # Leave

    async def _stop_all(self) -> None:
        await self._tasks.starts_ended()  # these run in a moment, too
        stop = StopRequest(
            requested_by="jobworker (stop on exit)", request_time=datetime.now(UTC), grace=STOP_ALL_GRACE
        )
        with suppress(TimeoutError):  # a process that the kernel does not let go of must not keep this one
            async with asyncio.timeout(STOP_ALL_PATIENCE), asyncio.TaskGroup() as group:
                for live in self._running:
                    group.create_task(live.execution.request_stop(stop))
                    group.create_task(live.ended.wait())

    async def _leave(self) -> None:
        """Let starts that are under way come to their end, and let go of the jobs."""
        await self._tasks.__aexit__()
        for live in self._running:
            await live.execution.close()
