"""The jobs that run: each is watched until its end is remembered, and only then told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from jobworker.core.errors import JobworkerError, RequestIdReusedError, StoreError
from jobworker.core.job import Job
from jobworker.executors.base import Executor, Outcome
from jobworker.store.base import JobStore
from jobworker.worker.live import LiveJob
from jobworker.worker.quotas import JobCounts
from jobworker.worker.recovery import UNREADABLE, lost_now, put
from jobworker.worker.tasks import Tasks

RETRY = 1.0  # seconds between tries of what a full disk or too many open files have kept from being done


class RunningJobs:
    """All jobs that run, and those whose end is not in the store yet."""

    def __init__(self, executor: Executor, store: JobStore, counts: JobCounts, tasks: Tasks) -> None:
        self._executor = executor
        self._store = store
        self._counts = counts
        self._tasks = tasks
        self._live: dict[str, LiveJob] = {}
        self._unlisted: dict[str, LiveJob] = {}  # those of them that the store has not taken yet
        self._refusal: JobworkerError | None = None  # of the store, the last time it was told something

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(list(self._live.values()))

    def get(self, job_id: str) -> LiveJob | None:
        """One of them."""
        return self._live.get(job_id)

    def find_request(self, owner: str, request_id: str) -> Job | None:
        """The one that was started with this request id, as long as the store does not know of it."""
        jobs = (live.job for live in self._unlisted.values())
        return next((job for job in jobs if (job.owner, job.request_id) == (owner, request_id)), None)

    def as_it_is(self, job: Job) -> Job:
        """A job from the store or from memory, with what changes while it runs."""
        if (live := self._live.get(job.id)) is not None:
            job = live.job
        if job.end is not None:
            return job
        extent = self._executor.output_extent(job.id)
        return replace(job, output_bytes=extent.end, output_first_offset=extent.first)

    def admit(self, owner: str) -> AbstractContextManager[None]:
        """Count one more against the quotas, which stays unless the block fails.

        Raises `QuotaExceededError`, and `StoreError` while there is a job that the store does not take: no more are
        started than were under way by then.
        """
        if self._refusal is not None:
            raise StoreError(str(self._refusal))
        return self._counts.admit(owner)

    def adopt(self, live: LiveJob) -> None:
        """Go on with a job of an earlier worker."""
        self._counts.take(live.job.owner)
        self._live[live.job.id] = live
        self._tasks.watch(self._watch, live)

    def begin(self, live: LiveJob) -> None:
        """Have one more, which has been admitted and has just been started."""
        self._live[live.job.id] = self._unlisted[live.job.id] = live
        self._tasks.watch(self._list, live)

    def forget(self, job_id: str) -> None:
        """Have it no more; one that is not there is no error."""
        self._live.pop(job_id, None)
        self._unlisted.pop(job_id, None)

    async def _list(self, live: LiveJob) -> None:
        """Have a job in the lists, and watch it. Its directory has the start, so nobody has waited for this."""
        try:
            await self._store.add(live.job)
        except (StoreError, RequestIdReusedError) as error:
            self._refusal = error
            self._tasks.watch(self._list_later, live)
        else:
            self._unlisted.pop(live.job.id, None)
        await self._watch(live)

    async def _list_later(self, live: LiveJob) -> None:
        # Until the store has taken something, even where the job is listed meanwhile: else its refusal would stay.
        while not await self._remember(live.job):  # noqa: ASYNC110 - a store tells nobody that it works again
            await asyncio.sleep(RETRY)

    async def _watch(self, live: LiveJob) -> None:
        """Wait for the end of a job, remember that, and only then tell it."""
        while True:
            try:
                outcome = await live.execution.outcome()
                break
            except OSError:  # out of descriptors, most likely: it can wait for better times
                await asyncio.sleep(RETRY)
            except UNREADABLE:  # there is a record of the end, and nobody will ever know what it said
                outcome = Outcome(end=lost_now(self._executor.output_extent(live.job.id)), stop=live.job.stop)
                break
        job = live.with_outcome(outcome)
        remembered = await self._remember(job)
        live.end(job)
        self._counts.release(job.owner)
        while not remembered:  # its directory has the end, so it can be told; the lists want it, too
            await asyncio.sleep(RETRY)
            remembered = await self._remember(job)
        self.forget(job.id)

    async def _remember(self, job: Job) -> bool:
        try:
            if job.id in self._unlisted:
                await put(self._store, job)
                self._unlisted.pop(job.id, None)
            else:
                await self._store.update(job)
        except StoreError as error:
            self._refusal = error
            return False
        self._refusal = None
        return True
