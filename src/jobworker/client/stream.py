"""A job's output, byte for byte, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Self

import grpc
import grpc.aio

from jobworker.api.convert import job_from
from jobworker.api.convert_output import piece_from, selection_message
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.client.connection import Connection
from jobworker.core.errors import InvalidArgumentError, OffsetOutOfRangeError
from jobworker.core.job import Job
from jobworker.core.output import Chunk, Gap, GapReason, Selection
from jobworker.linux.memory import keep_freed_memory

MAX_OFFSET = 2**63 - 1  # what the wire has room for

_Call = grpc.aio.UnaryStreamCall[pb.StreamOutputRequest, pb.StreamOutputResponse]


class OutputStream:
    """An asynchronous iterator over a job's output that survives the loss of the connection.

    Chunks follow each other without a hole and without overlap, but for what is not wanted and for `gaps`: output that
    the server could not keep, or has given up for newer. It ends when the server has said that this was all, and then
    `job` is the job as it was at that moment; a mere silence or a cut connection is no end. Raises `JobNotFoundError`,
    `OffsetOutOfRangeError`, or `ServerUnavailableError` when the server stays away for too long.

    A cancelled step loses nothing: the next one goes on at the same offset. For one task at a time.
    """

    _call: _Call | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, connection: Connection, job_id: str, selection: Selection, *, follow: bool) -> None:
        if selection.offset > MAX_OFFSET:
            raise InvalidArgumentError("offset", f"must be 0 to {MAX_OFFSET}")
        self.job_id = job_id
        self.job: Job | None = None
        self.gaps: list[Gap] = []
        self._selection = selection
        self._offset = selection.offset
        self._began = False
        self._follow = follow
        self._connection = connection
        self._credentials = connection.credentials  # of the last call
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

    async def for_each(self, take: Callable[[Chunk], Awaitable[None]]) -> Job:
        """As `copy_to`, with whole chunks, which say where they came from."""
        while True:
            step = await self._step()
            if isinstance(step, Job):
                return step
            await take(step)

    async def aclose(self) -> None:
        """Let go of the connection; the job is not touched."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def _step(self) -> Chunk | Job:
        """The next piece, or the job at the end."""
        while self.job is None:
            message = await self._read()
            if message is None or (message.offset > self._offset and not self._may_skip):
                await self._cut(None)  # a hole is as bad as a cut: ask again
                continue
            self._connection.contact(self._backoff)
            self._began = True
            self._offset = max(self._offset, message.offset)
            if message.HasField("job"):
                self.job = job_from(message.job)
                await self.aclose()
            elif piece := piece_from(message, self._offset):
                self._offset = piece.end
                if isinstance(piece, Chunk):
                    return piece
                self._miss(piece)
        return self.job

    @property
    def _may_skip(self) -> bool:
        """Whether the next piece may be further on than the next byte: where others are not wanted."""
        wanted = self._selection
        return bool(wanted.streams) or (not self._began and (wanted.tail is not None or wanted.since is not None))

    def _miss(self, gap: Gap) -> None:
        last = self.gaps[-1] if self.gaps else None
        if last is not None and last.end == gap.offset and last.reason is gap.reason:
            gap = replace(last, length=last.length + gap.length)  # it grows while the job goes on
            self.gaps.pop()
        self.gaps.append(gap)

    async def _read(self) -> pb.StreamOutputResponse | None:
        """The next message; `None` where the server ended the stream without its last one."""
        while True:
            try:
                if self._call is None:
                    self._call = await self._open()
                message = await self._call.read()
            except grpc.aio.AioRpcError as status:
                if self._connection.may_recover(status, self._credentials):
                    await self._cut(status)
                    continue
                error = await self._connection.error(status)
                if not (self._began and isinstance(error, OffsetOutOfRangeError) and error.first > self._offset):
                    raise error from None
                # What comes next has made room for newer output while the connection was cut.
                self._miss(Gap(offset=self._offset, length=error.first - self._offset, reason=GapReason.TRIMMED))
                self._offset = error.first
                await self.aclose()
            except asyncio.CancelledError:
                await self.aclose()
                raise
            else:
                return message if isinstance(message, pb.StreamOutputResponse) else None

    async def _open(self) -> _Call:
        keep_freed_memory()
        self._loop = asyncio.get_running_loop()
        stub = await self._connection.stub()
        self._credentials = self._connection.credentials
        selection = self._selection
        if self._began:  # where it begins has been found
            selection = replace(selection, offset=self._offset, tail=None, since=None)
        call = stub.StreamOutput(selection_message(self.job_id, selection, follow=self._follow))
        await self._connection.accepted(call, self._backoff)
        return call

    async def _cut(self, status: grpc.aio.AioRpcError | None) -> None:
        await self.aclose()
        await self._connection.pause(self._backoff, status)
