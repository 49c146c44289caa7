"""jobworker.v1.JobService: thin; what it says is what the worker says."""

from __future__ import annotations

import signal as signals
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from google.protobuf.empty_pb2 import Empty

from jobworker.api import convert
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceServicer
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.query import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from jobworker.server.call import Context, current_call, reach
from jobworker.server.pages import page_within
from jobworker.worker import Worker

# Clients of gRPC take messages of at most 4 MiB by default. The largest job has max_command_bytes and some.
MAX_PAGE_BYTES = 3 * 1024**2


class JobService(JobServiceServicer):
    """Serves one worker's jobs."""

    def __init__(self, worker: Worker, *, version: str) -> None:
        self._worker = worker
        self._version = version

    async def StartJob(self, request: pb.StartJobRequest, context: Context) -> pb.Job:
        call = current_call.get()
        convert.refuse_unknown_fields(request)
        spec = convert.spec_from(request.spec)
        job = await self._worker.start(spec, call.principal.name, request.request_id or None)
        call.job_id = job.id
        return convert.job_message(job)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.Job:
        return convert.job_message(await reach(self._worker, request.job_id))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        where = convert.filter_from(request)
        if request.page_size < 0:
            raise InvalidArgumentError("page_size", f"must be 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}")
        reached = current_call.get().owner
        if reached is not None:
            if where.owner not in (None, reached):
                return pb.ListJobsResponse()
            where = replace(where, owner=reached)
        return await page_within(
            self._worker,
            where,
            size=min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE),
            token=request.page_token or None,
            max_bytes=MAX_PAGE_BYTES,
        )

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

    async def WaitJob(self, request: pb.WaitJobRequest, context: Context) -> pb.Job:
        await reach(self._worker, request.job_id)
        return convert.job_message(await self._worker.wait(request.job_id))

    async def StreamOutput(
        self, request: pb.StreamOutputRequest, context: Context
    ) -> AsyncIterator[pb.StreamOutputResponse]:
        await reach(self._worker, request.job_id)
        end = request.offset
        async with aclosing(self._worker.stream(request.job_id, request.offset, follow=request.follow)) as chunks:
            async for chunk in chunks:
                yield pb.StreamOutputResponse(
                    offset=chunk.offset, data=chunk.data, stream=pb.StreamOutputResponse.COMBINED
                )
                end = chunk.offset + len(chunk.data)
        job = await self._worker.get(request.job_id)
        yield pb.StreamOutputResponse(offset=end, job=convert.job_message(job))

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> Empty:
        await reach(self._worker, request.job_id)
        await self._worker.remove(request.job_id)
        return Empty()

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.ServerInfo:
        info = self._worker.info
        return pb.ServerInfo(
            version=self._version,
            executor=info.executor,
            enforceable_limits=convert.limit_names(info.enforceable_limits),
            process_tracking=info.process_tracking,
            durability=info.durability,
            job_user=info.job_user,
        )
