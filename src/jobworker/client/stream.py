"""A job's output, byte for byte, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

import grpc
import grpc.aio

from jobworker.api.convert import job_from
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.client.connection import Connection, accepted, is_outage
from jobworker.client.results import Chunk
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.job import Job

MAX_OFFSET = 2**63 - 1  # what the wire has room for

_Call = grpc.aio.UnaryStreamCall[pb.StreamOutputRequest, pb.StreamOutputResponse]


class OutputStream:
    """An asynchronous iterator over a job's output that survives the loss of the connection.

    Chunks follow each other without a gap and without overlap. It ends when the server has said that this was all, and
    then `job` is the job as it was at that moment; a mere silence or a cut connection is no end. Raises
    `JobNotFoundError`, `OffsetOutOfRangeError`, or `ServerUnavailableError` when the server stays away for too long.

    A cancelled step loses nothing: the next one goes on at the same offset. For one task at a time.
    """

    _call: _Call | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, connection: Connection, job_id: str, *, offset: int, follow: bool) -> None:
        if not 0 <= offset <= MAX_OFFSET:
            raise InvalidArgumentError("offset", f"must be 0 to {MAX_OFFSET}")
        self.job_id = job_id
        self.job: Job | None = None
        self._offset = offset
        self._follow = follow
        self._connection = connection
        self._backoff = connection.backoff()

    def __del__(self) -> None:
        # A loop over the stream that is left early: else the call would stay open for as long as the connection.
        if self._call is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._call.cancel)

    @property
    def offset(self) -> int:
        """Position of the next byte in the job's output."""
        return self._offset

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        step = await self._step()
        if isinstance(step, Job):
            raise StopAsyncIteration
        return step

    async def copy_to(self, write: Callable[[bytes], Awaitable[None]]) -> Job:
        """Give all output from here on to `write`, piece by piece, and return the job as it was at the end."""
        while True:
            step = await self._step()
            if isinstance(step, Job):
                return step
            await write(step.data)

    async def aclose(self) -> None:
        """Let go of the connection; the job is not touched."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def _step(self) -> Chunk | Job:
        """The next piece, or the job at the end."""
        while self.job is None:
            message = await self._read()
            if message is None or message.offset > self._offset:  # a gap is as bad as a cut: ask again
                await self._cut(None)
                continue
            self._backoff.contact()
            if message.HasField("job"):
                self.job = job_from(message.job)
                await self.aclose()
            elif data := message.data[self._offset - message.offset :]:
                chunk = Chunk(offset=self._offset, data=data)
                self._offset += len(data)
                return chunk
        return self.job

    async def _read(self) -> pb.StreamOutputResponse | None:
        """The next message; `None` where the server ended the stream without its last one."""
        while True:
            try:
                if self._call is None:
                    self._call = await self._open()
                message = await self._call.read()
            except grpc.aio.AioRpcError as status:
                if not is_outage(status):
                    raise await self._connection.error(status) from None
                await self._cut(status)
            except asyncio.CancelledError:
                await self.aclose()
                raise
            else:
                return message if isinstance(message, pb.StreamOutputResponse) else None

    async def _open(self) -> _Call:
        self._loop = asyncio.get_running_loop()
        stub = await self._connection.stub()
        call = stub.StreamOutput(pb.StreamOutputRequest(job_id=self.job_id, offset=self._offset, follow=self._follow))
        await accepted(call, self._backoff)
        return call

    async def _cut(self, status: grpc.aio.AioRpcError | None) -> None:
        await self.aclose()
        await self._connection.pause(self._backoff, status)
