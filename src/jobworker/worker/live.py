"""A job between its start and the record of its end, as the worker holds it in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from jobworker.core.job import Job
from jobworker.core.limits import Limits
from jobworker.executors.base import Execution, Outcome, Output


class LiveJob:
    """The job, its execution, and those who follow its output. `ended` is set once the end can be told.

    `updating` is held by whoever changes its limits, for that takes the present ones into account.
    """

    def __init__(self, job: Job, execution: Execution) -> None:
        self._job = job
        self.execution = execution
        self.ended = asyncio.Event()
        self.updating = asyncio.Lock()
        self._followers: set[Output] = set()

    @property
    def job(self) -> Job:
        """The job as it is now, but for the size of its output while it runs."""
        job, execution = self._job, self.execution
        if job.end is not None:
            return job
        stop = execution.stop or job.stop
        if (stop, execution.paused, execution.unkillable_pids) != (job.stop, job.paused, job.unkillable_pids):
            job = replace(job, stop=stop, paused=execution.paused, unkillable_pids=execution.unkillable_pids)
        return job

    def limit(self, limits: Limits) -> None:
        """These limits are in force now."""
        self._job = replace(self._job, limits=limits)

    def with_outcome(self, outcome: Outcome) -> Job:
        """The job as it will be when `end` is called with it."""
        return replace(outcome.of(self.job), paused=False, unkillable_pids=())

    def end(self, job: Job) -> None:
        """Let everybody know that the job has ended."""
        self._job = job
        self.ended.set()
        for follower in self._followers:
            follower.wake()

    def follow(self, output: Output) -> None:
        """Wake the reader of an output when the job ends."""
        self._followers.add(output)
        if self.ended.is_set():
            output.wake()

    def unfollow(self, output: Output) -> None:
        """Forget a reader."""
        self._followers.discard(output)
