"""Starts: each is admitted, run, and answered, or leaves nothing."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime

from jobworker.core.errors import InvalidArgumentError, RequestIdReusedError
from jobworker.core.job import Job
from jobworker.core.limit_policy import LimitPolicy
from jobworker.core.output import OutputPolicy
from jobworker.core.spec import JobSpec
from jobworker.executors.base import Executor
from jobworker.store.base import JobStore
from jobworker.worker import limits as limits_
from jobworker.worker.live import LiveJob
from jobworker.worker.running import RunningJobs
from jobworker.worker.space import Space
from jobworker.worker.tasks import Tasks


class Starts:
    """Those that are under way, by their request ids; each goes on when its caller is cancelled."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a worker that a start takes
        self,
        executor: Executor,
        store: JobStore,
        running: RunningJobs,
        tasks: Tasks,
        output: OutputPolicy,
        space: Space,
    ) -> None:
        self._output = output
        self._space = space
        self._executor = executor
        self._store = store
        self._running = running
        self._tasks = tasks
        self._by_request: dict[tuple[str, str], asyncio.Future[Job]] = {}

    async def start(self, spec: JobSpec, owner: str, request_id: str | None, limit_policy: LimitPolicy) -> Job:
        """Start a job, or give the one that the request id has started; see `Worker.start`."""
        if request_id is None:
            return await asyncio.shield(self._tasks.start(self._start, spec, owner, None, limit_policy))
        request = (owner, _canonical(request_id))
        start = self._by_request.get(request)
        if start is None:
            start = self._by_request[request] = self._tasks.start(self._start_once, spec, *request, limit_policy)
            start.add_done_callback(lambda _: self._by_request.pop(request))
        job = await asyncio.shield(start)
        if job.spec != spec:
            raise RequestIdReusedError(request_id)
        return job

    async def _start_once(self, spec: JobSpec, owner: str, request_id: str, limit_policy: LimitPolicy) -> Job:
        found = self._running.find_request(owner, request_id) or await self._store.find_request(owner, request_id)
        if found is None:
            return await self._start(spec, owner, request_id, limit_policy)
        return self._running.as_it_is(found)

    async def _start(self, spec: JobSpec, owner: str, request_id: str | None, limit_policy: LimitPolicy) -> Job:
        limits = limits_.at_start(spec.limits, limit_policy, self._executor.info)
        output_limit = self._output.effective(spec.output_limit)
        await self._space.check()
        with self._running.admit(owner):
            job = Job(
                id=self._executor.new_id(),
                owner=owner,
                spec=spec,
                request_id=request_id,
                create_time=datetime.now(UTC),
                limits=limits,
                output_limit=output_limit,
            )
            execution = await self._executor.start(job)
            job = replace(job, start_time=execution.start_time)
            self._running.begin(LiveJob(job, execution))
            return job


def _canonical(request_id: str) -> str:
    try:
        return str(uuid.UUID(request_id))
    except ValueError:
        raise InvalidArgumentError("request_id", f"{request_id!r} is no UUID") from None
