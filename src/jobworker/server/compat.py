"""proto.WorkerService: the older contract, spoken from the same worker.

What the older contract cannot say is said in its nearest word:

- A job that was LOST is FINISHED with exit code -1.
- Any end by a signal (also out of memory, or the kill after a stop) has the exit code 128 plus the signal's number.
- Stopping a job that has ended is no error: the older service's clients stop what they no longer need and treat an
  error as a failure to do so. The job's record does not change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

from jobworker.api.compat import worker_pb2 as pb
from jobworker.api.compat.worker_pb2_grpc import WorkerServiceServicer
from jobworker.core.errors import JobEndedError
from jobworker.core.job import JobEnd
from jobworker.core.output import Chunk
from jobworker.core.spec import JobSpec
from jobworker.core.state import JobState
from jobworker.server.call import Context, current_call, reach
from jobworker.server.limits import RoleLimits
from jobworker.worker import Worker

_STATUS = {
    JobState.RUNNING: pb.RUNNING,
    JobState.STOPPED: pb.STOPPED,
    JobState.FINISHED: pb.FINISHED,
    JobState.LOST: pb.FINISHED,
}
_NOBODY_KNOWS = -1
_SIGNAL_BASE = 128  # as shells do


class WorkerService(WorkerServiceServicer):
    """Serves one worker's jobs to clients of the older service."""

    def __init__(self, worker: Worker, *, limits: RoleLimits) -> None:
        self._worker = worker
        self._limits = limits

    async def StartJob(self, request: pb.StartJobRequest, context: Context) -> pb.StartJobResponse:
        call = current_call.get()
        job = await self._worker.start(
            JobSpec(argv=(request.cmd, *request.args)),
            call.principal.name,
            limit_policy=self._limits.of(call.principal),
        )
        call.job_id = job.id
        return pb.StartJobResponse(ID=job.id)

    async def StopJob(self, request: pb.StopJobRequest, context: Context) -> pb.StopJobResponse:
        job = await reach(self._worker, request.id)
        with suppress(JobEndedError):  # what its caller wanted is so; see the module's description
            await self._worker.stop(job.id, by=current_call.get().principal.name)
        return pb.StopJobResponse()

    async def GetJobStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        job = await reach(self._worker, request.id)
        return pb.GetStatusResponse(status=_STATUS[job.state], exitcode=0 if job.end is None else _exit_code(job.end))

    async def GetOutputStream(
        self, request: pb.GetStreamRequest, context: Context
    ) -> AsyncIterator[pb.GetStreamResponse]:
        job = await reach(self._worker, request.id)
        async with aclosing(self._worker.stream(job.id)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Chunk):  # it has no word for what is missing
                    yield pb.GetStreamResponse(result=piece.data)


def _exit_code(end: JobEnd) -> int:
    if end.exit_code is not None:
        return end.exit_code
    return _NOBODY_KNOWS if end.signal is None else _SIGNAL_BASE + end.signal
