"""A real gRPC server over mutual TLS that answers as a test says: what a real jobworker does only in bad moments."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn

import grpc
import grpc.aio

from jobworker.api.convert import job_message
from jobworker.api.status import status_from
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from jobworker.client import AsyncClient, Timeouts
from jobworker.core.errors import JobworkerError
from jobworker.core.job import Job
from tests.support.jobs import accepted_job, ended, started
from tests.support.pki import Authority

Context = grpc.aio.ServicerContext[Any, Any]
Step = Callable[[Context], Awaitable[object]]
Piece = pb.StreamOutputResponse

AUTHORITY = Authority()
SERVER = AUTHORITY.server()
ALICE = AUTHORITY.client("alice")
RUNNING = started(accepted_job(owner="alice"))
ENDED = ended(RUNNING)


@dataclass
class Script(JobServiceServicer):
    """Answers each call with the next step, whatever is called, and keeps the requests."""

    steps: deque[Step]
    requests: list[Any] = field(default_factory=list[Any])
    address: str = ""

    async def _play(self, request: object, context: Context) -> Any:  # noqa: ANN401 -- the response of the RPC
        self.requests.append(request)
        return await self.steps.popleft()(context)

    async def StreamOutput(  # noqa: N802 -- the RPC's name
        self, request: pb.StreamOutputRequest, context: Context
    ) -> AsyncIterator[pb.StreamOutputResponse]:
        """Play a step that writes its messages itself."""
        await self._play(request, context)
        return
        yield Piece()  # which makes it a generator

    StartJob = GetJob = ListJobs = GetServerInfo = WaitJob = StopJob = SignalJob = DeleteJob = _play
    PauseJob = ResumeJob = UpdateJob = GetUsage = ListUsages = _play


def answer(response: object = None) -> Step:
    """Answer with a message, by default with a running job."""

    async def step(_context: Context) -> object:
        return job_message(RUNNING) if response is None else response

    return step


def fail(code: grpc.StatusCode, text: str = "") -> Step:
    """End the call as gRPC itself does."""

    async def step(context: Context) -> NoReturn:
        await context.abort(code, text)

    return step


def refuse(error: JobworkerError) -> Step:
    """End the call with one of our errors."""

    async def step(context: Context) -> NoReturn:
        status = status_from(error)
        await context.abort(status.code, status.text, status.trailing_metadata)

    return step


def hang(entered: asyncio.Event, left: asyncio.Event | None = None) -> Step:
    """Never answer; `left` is set when the caller has gone."""

    async def step(_context: Context) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            if left is not None:
                left.set()

    return step


def stream(messages: Iterable[Piece], then: Step | None = None) -> Step:
    """Write messages, then end well or as `then` says."""

    async def step(context: Context) -> None:
        for message in messages:
            await context.write(message)
        if then is not None:
            await then(context)

    return step


def piece(offset: int, data: bytes) -> Piece:
    """A piece of output."""
    return Piece(offset=offset, data=data, stream=Piece.COMBINED)


def gap(offset: int, length: int, reason: pb.OutputGap.Reason.ValueType = pb.OutputGap.LIMIT) -> Piece:
    """A piece of output that is missing."""
    return Piece(offset=offset, gap=pb.OutputGap(length=length, reason=reason))


def last(offset: int, job: Job = ENDED) -> Piece:
    """The last message of a stream."""
    return Piece(offset=offset, job=job_message(job))


@asynccontextmanager
async def scripted_server(*steps: Step) -> AsyncGenerator[Script]:
    """A server on loopback that plays these steps, all of which must be played."""
    script = Script(steps=deque(steps))
    server = grpc.aio.server()
    add_JobServiceServicer_to_server(script, server)
    credentials = grpc.ssl_server_credentials(
        [(SERVER.key, SERVER.certificate)], AUTHORITY.certificate, require_client_auth=True
    )
    script.address = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
    await server.start()
    try:
        yield script
        assert not script.steps, "the client did not call as often as it should"
    finally:
        await server.stop(None)


def client_of(
    script: Script,
    *,
    reconnect: timedelta = timedelta(seconds=30),
    on_outage: Callable[[], None] | None = None,
    on_recovery: Callable[[], None] | None = None,
) -> AsyncClient:
    """A client of a scripted server."""
    return AsyncClient(
        script.address,
        ca=AUTHORITY.certificate,
        cert=ALICE.certificate,
        key=ALICE.key,
        timeouts=Timeouts(reconnect=reconnect),
        on_outage=on_outage,
        on_recovery=on_recovery,
    )
