"""The jobs that run: each is watched until its end is remembered, and only then told."""

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

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(list(self._live.values()))

    def get(self, job_id: str) -> LiveJob | None:
        """One of them."""
        return self._live.get(job_id)

    def as_it_is(self, job: Job) -> Job:
        """A job from the store or from memory, with what changes while it runs."""
        if (live := self._live.get(job.id)) is not None:
            job = live.job
        if job.end is not None:
            return job
        extent = self._executor.output_extent(job.id)
        return replace(job, output_bytes=extent.end, output_first_offset=extent.first)

    def admit(self, owner: str) -> AbstractContextManager[None]:
        """Count one more against the quotas, which stays unless the block fails. Raises `QuotaExceededError`."""
        return self._counts.admit(owner)

    def adopt(self, live: LiveJob) -> None:
        """Go on with a job of an earlier worker."""
        self._counts.take(live.job.owner)
        self.watch(live)

    def watch(self, live: LiveJob) -> None:
        """Have one more, which has been admitted, and wait for its end from now on."""
        self._live[live.job.id] = live
        self._tasks.watch(self._watch, live)

    def forget(self, job_id: str) -> None:
        """Have it no more; one that is not there is no error."""
        self._live.pop(job_id, None)

    async def _watch(self, live: LiveJob) -> None:
        """Remember the start of a job, wait for its end, remember that, and only then tell it."""
        # Its directory has the start, so nobody has waited for this; the lists want it.
        if not await self._remember(live.job):
            self._tasks.watch(self._remember_start, live)
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

    async def _remember_start(self, live: LiveJob) -> None:
        while live.job.end is None:
            await asyncio.sleep(RETRY)
            if await self._remember(live.job):
                return

    async def _remember(self, job: Job) -> bool:
        try:
            await self._store.update(job)
        except StoreError:
            return False
        return True
