"""jobworker.v1.JobService: thin; what it says is what the worker says."""

from __future__ import annotations

import signal as signals
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from google.protobuf.empty_pb2 import Empty

from jobworker.api import convert
from jobworker.api.convert_output import selection_from, serialized_piece
from jobworker.api.limit_names import wire_limit
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceServicer
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.query import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, JobFilter
from jobworker.core.state import JobState
from jobworker.server.call import Context, current_call, reach
from jobworker.server.limits import RoleLimits
from jobworker.server.pages import page_within
from jobworker.worker import Worker

# Clients of gRPC take messages of at most 4 MiB by default. The largest job has max_command_bytes and some.
MAX_PAGE_BYTES = 3 * 1024**2


class JobService(JobServiceServicer):
    """Serves one worker's jobs."""

    def __init__(self, worker: Worker, *, limits: RoleLimits, version: str) -> None:
        self._worker = worker
        self._limits = limits
        self._version = version

    async def StartJob(self, request: pb.StartJobRequest, context: Context) -> pb.Job:
        call = current_call.get()
        convert.refuse_unknown_fields(request)
        spec = convert.spec_from(request.spec)
        job = await self._worker.start(
            spec, call.principal.name, request.request_id or None, limit_policy=self._limits.of(call.principal)
        )
        call.job_id = job.id
        return convert.job_message(job)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.Job:
        return convert.job_message(await reach(self._worker, request.job_id))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        return await self._page(convert.filter_from(request), request.page_size, request.page_token)

    async def StopJob(self, request: pb.StopJobRequest, context: Context) -> pb.Job:
        await reach(self._worker, request.job_id)
        job = await self._worker.stop(
            request.job_id,
            by=current_call.get().principal.name,
            grace=convert.grace_from(request),
            signal=request.signal or signals.SIGTERM,
        )
        return convert.job_message(job)

    async def SignalJob(self, request: pb.SignalJobRequest, context: Context) -> pb.SignalJobResponse:
        await reach(self._worker, request.job_id)
        await self._worker.signal(request.job_id, request.signal)
        return pb.SignalJobResponse()

    async def PauseJob(self, request: pb.PauseJobRequest, context: Context) -> pb.Job:
        await reach(self._worker, request.job_id)
        return convert.job_message(await self._worker.pause(request.job_id))

    async def ResumeJob(self, request: pb.ResumeJobRequest, context: Context) -> pb.Job:
        await reach(self._worker, request.job_id)
        return convert.job_message(await self._worker.resume(request.job_id))

    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Context) -> pb.Job:
        await reach(self._worker, request.job.id)
        convert.refuse_unknown_fields(request)
        job = await self._worker.update(
            request.job.id,
            convert.limits_from(request.job.limits),
            convert.changed_limits(request),
            limit_policy=self._limits.of(current_call.get().principal),
        )
        return convert.job_message(job)

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.Usage:
        await reach(self._worker, request.job_id)
        return convert.usage_message(await self._worker.usage(request.job_id))

    async def ListUsages(self, request: pb.ListUsagesRequest, context: Context) -> pb.ListUsagesResponse:
        where = JobFilter(states=frozenset({JobState.RUNNING}), owner=request.owner or None)
        page = await self._page(where, request.page_size, request.page_token)
        usages = await self._worker.usages(job.id for job in page.jobs)
        return pb.ListUsagesResponse(
            usages=[
                pb.JobUsage(job=job, usage=convert.usage_message(usages[job.id]))
                for job in page.jobs
                if job.id in usages
            ],
            next_page_token=page.next_page_token,
        )

    async def WaitJob(self, request: pb.WaitJobRequest, context: Context) -> pb.Job:
        await reach(self._worker, request.job_id)
        return convert.job_message(await self._worker.wait(request.job_id))

    async def StreamOutput(
        self, request: pb.StreamOutputRequest, context: Context
    ) -> AsyncIterator[Any]:  # a message or, already serialised, one of the many with data
        await reach(self._worker, request.job_id)
        convert.refuse_unknown_fields(request)
        selection = selection_from(request)
        end = selection.offset
        async with aclosing(self._worker.stream(request.job_id, selection, follow=request.follow)) as pieces:
            async for piece in pieces:
                yield serialized_piece(piece)
                end = piece.end
        job = await self._worker.get(request.job_id)
        yield pb.StreamOutputResponse(offset=end, job=convert.job_message(job))

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> Empty:
        await reach(self._worker, request.job_id)
        await self._worker.remove(request.job_id)
        return Empty()

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.ServerInfo:
        info = self._worker.info
        limits = self._limits.of(current_call.get().principal)
        return pb.ServerInfo(
            version=self._version,
            executor=info.executor,
            enforceable_limits=convert.limit_names(info.enforceable_limits),
            process_tracking=info.process_tracking,
            durability=info.durability,
            job_user=info.job_user,
            cgroups=info.cgroups,
            missing_limits=[
                pb.MissingLimit(limit=wire_limit(limit), reason=reason) for limit, reason in info.missing_limits
            ],
            limit_defaults=convert.limits_message(limits.default),
            limit_maximums=convert.limits_message(limits.maximum),
        )

    async def _page(self, where: JobFilter, size: int, token: str) -> pb.ListJobsResponse:
        """A page of those jobs that the current call reaches."""
        if size < 0:
            raise InvalidArgumentError("page_size", f"must be 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}")
        reached = current_call.get().owner
        if reached is not None:
            if where.owner not in (None, reached):
                return pb.ListJobsResponse()
            where = replace(where, owner=reached)
        return await page_within(
            self._worker,
            where,
            size=min(size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE),
            token=token or None,
            max_bytes=MAX_PAGE_BYTES,
        )
