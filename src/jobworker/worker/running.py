"""The jobs that run: each is watched until its end is on record, which is told then, and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from jobworker.core.errors import StoreError
from jobworker.core.job import Job
from jobworker.executors.base import Executor, Outcome
from jobworker.store.base import JobStore
from jobworker.worker.live import LiveJob
from jobworker.worker.quotas import JobCounts
from jobworker.worker.recovery import UNREADABLE, lost_now
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
        self._refusals: dict[str, StoreError] = {}  # why it has not taken what there is to say of a job, by its id

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(list(self._live.values()))

    def get(self, job_id: str) -> LiveJob | None:
        """One that runs."""
        live = self._live.get(job_id)
        return None if live is None or live.ended.is_set() else live

    def known(self, job_id: str) -> Job | None:
        """One that runs, or that has ended and the store does not know it yet."""
        live = self._live.get(job_id)
        return None if live is None else live.job

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

        Raises `QuotaExceededError`, and `StoreError` while there is a job of which the store does not take what there
        is to say: no more are started than were under way when that was found out.
        """
        for refusal in self._refusals.values():
            raise StoreError(str(refusal))
        return self._counts.admit(owner)

    def adopt(self, live: LiveJob) -> None:
        """Go on with a job of an earlier worker."""
        self._counts.take(live.job.owner)
        self._live[live.job.id] = live
        self._tasks.watch(self._watch, live)

    def begin(self, live: LiveJob) -> None:
        """Have one more, which has been admitted and has just been started."""
        self._live[live.job.id] = self._unlisted[live.job.id] = live
        self.note(live)
        self._tasks.watch(self._watch, live)

    def note(self, live: LiveJob) -> None:
        """Have the store know what there is to say of a job; its directory has that already, so nobody waits for it."""
        self._tasks.watch(self._remember, live)

    def forget(self, job_id: str) -> None:
        """Have it no more; one that is not there is no error."""
        self._live.pop(job_id, None)
        self._unlisted.pop(job_id, None)

    async def _remember(self, live: LiveJob) -> None:
        """Have the store know of a job as it is, as soon as it takes that, and as long as the job is not forgotten."""
        job_id = live.job.id
        while self._live.get(job_id) is live:
            try:
                await self._store.put(live.job)
                break
            except StoreError as error:
                self._refusals[job_id] = error
                await asyncio.sleep(RETRY)  # a store tells nobody that it works again
        self._unlisted.pop(job_id, None)
        self._refusals.pop(job_id, None)

    async def _watch(self, live: LiveJob) -> None:
        """Wait for the recorded end of a job, tell it, and have it remembered."""
        while True:
            try:
                outcome = await live.execution.outcome()
                break
            except OSError:  # out of descriptors, most likely: it can wait for better times
                await asyncio.sleep(RETRY)
            except UNREADABLE:  # there is a record of the end, and nobody will ever know what it said
                outcome = Outcome(end=lost_now(self._executor.output_extent(live.job.id)), stop=live.job.stop)
                break
        live.end(live.with_outcome(outcome))
        self._counts.release(live.job.owner)
        await self._remember(live)
        self.forget(live.job.id)
