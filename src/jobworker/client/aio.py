"""The asynchronous client."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack, cast

import grpc.aio
from google.protobuf.empty_pb2 import Empty

from jobworker.api.convert import (
    duration_message,
    filter_message,
    job_from,
    limits_from,
    spec_message,
    update_message,
    usage_from,
)
from jobworker.api.limit_names import core_limit
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.client.connection import Connection, Timeouts
from jobworker.client.credentials import Credentials, Pem
from jobworker.client.results import JobFailedError, RunResult, RunTimeoutError, ServerInfo
from jobworker.client.stream import OutputStream
from jobworker.core.address import Address
from jobworker.core.checks import duration, of_type
from jobworker.core.errors import InvalidArgumentError, JobEndedError, JobNotFoundError
from jobworker.core.job import Job, check_signal, checked_grace
from jobworker.core.limits import Limits
from jobworker.core.output import Chunk, Gap, OutputLimit, OutputMode, Selection, Stream
from jobworker.core.query import DEFAULT_PAGE_SIZE, JobFilter
from jobworker.core.spec import ChildPolicy, JobSpec
from jobworker.core.usage import Usage

if TYPE_CHECKING:
    from jobworker.api.v1.jobs_pb2_grpc import JobServiceAsyncStub  # exists for the type checker only


class SpecFields(TypedDict, total=False):
    """The fields of a `JobSpec` other than its argv, in every form that it takes."""

    env: Mapping[str, str]
    cwd: str | os.PathLike[str]
    name: str | None
    labels: Mapping[str, str]
    time_limit: timedelta | float | None
    limits: Limits
    child_policy: ChildPolicy | str
    output: OutputMode | str
    output_limit: OutputLimit


class SelectionFields(TypedDict, total=False):
    """Which part of the output is wanted, other than its offset.

    `tail` is a number of lines before the present end, instead of an offset. `streams` are those wanted of a job whose
    output is split. `since` and `until` bound when it arrived (aware times; `until` is exclusive); `times` asks for the
    time of each chunk.
    """

    tail: int | None
    streams: Iterable[Stream | str]
    since: datetime | None
    until: datetime | None
    times: bool


class AsyncClient:
    """A client of one server, for one event loop.

    `server` is "host:port". `ca`, `cert` and `key` are paths of PEM files, or as bytes their content: the CA that
    issued the server's certificate, the client's certificate, and its key. Use it as a context manager, or `close` it.

    The first call connects. While no connection can be made it fails at once with `ServerUnavailableError`, which says
    why and what to do. Once there was a connection, calls that can be repeated outlive its loss for
    `timeouts.reconnect`; `on_outage` is called when that has taken some seconds, and `on_recovery` when the server
    answers after that. All methods raise the errors of `jobworker.core.errors`.
    """

    def __init__(  # noqa: PLR0913 -- all but the server by keyword
        self,
        server: str,
        *,
        ca: Pem,
        cert: Pem,
        key: Pem,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 -- it is frozen
        on_outage: Callable[[], None] | None = None,
        on_recovery: Callable[[], None] | None = None,
    ) -> None:
        credentials = Credentials.read(ca=ca, cert=cert, key=key)
        self._connection = Connection(_address(server), credentials, timeouts, on_outage, on_recovery)
        self._timeouts = timeouts

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether there has been a connection; before that, no call can have reached the server."""
        return self._connection.connected

    async def close(self) -> None:
        """Close the connection. Jobs are not touched."""
        await self._connection.close()

    async def start(
        self, command: Sequence[str] | JobSpec, *, request_id: str | None = None, **fields: Unpack[SpecFields]
    ) -> Job:
        """Start a command, given as its argv and the other fields of its spec, or as a whole spec.

        Every start carries a request id, a new random UUID if none is given, so that it is repeated safely when its
        answer was lost: it starts one job, however often it has to be sent.
        """
        spec = _spec(command, fields)
        request = pb.StartJobRequest(spec=_message_of(spec), request_id=request_id or str(uuid.uuid4()))
        return job_from(await self._connection.call(lambda s: s.StartJob, request, deadline=self._timeouts.call))

    async def run(
        self,
        command: Sequence[str] | JobSpec,
        *,
        check: bool = False,
        timeout: timedelta | float | None = None,  # noqa: ASYNC109 -- as subprocess.run's: it stops the job
        request_id: str | None = None,
        **fields: Unpack[SpecFields],
    ) -> RunResult:
        """Start a command and wait for its end; like `subprocess.run`.

        After `timeout`, a `timedelta` or seconds, the job is killed, and `RunTimeoutError` raised. With `check`,
        `JobFailedError` is raised unless it exits with 0. Both carry the result. A call that is cancelled leaves the
        job running.
        """
        longest = None if timeout is None else duration("timeout", timeout).total_seconds()
        if longest is not None and longest < 0:
            raise InvalidArgumentError("timeout", "must not be negative")
        job = await self.start(command, request_id=request_id, **fields)
        stream, output = self.stream(job.id), _Output()
        in_time = True
        try:
            async with asyncio.timeout(longest):
                job = await stream.for_each(output.keep)
        except TimeoutError:
            in_time = not await self._kill(job.id)
            job = await stream.for_each(output.keep)
        result = output.result(job, stream.gaps)
        if not in_time:
            raise RunTimeoutError(result)
        if check and result.exit_code != 0:
            raise JobFailedError(result)
        return result

    def stream(
        self, job_id: str, offset: int = 0, *, follow: bool = True, **fields: Unpack[SelectionFields]
    ) -> OutputStream:
        """The job's output from a byte offset on: what is there and, with `follow`, what comes until its end.

        The iterator survives reconnects without losing or repeating a byte; its `job` is known when it has ended. What
        is missing of the output shows in its `gaps`, not among its chunks. See `SelectionFields` for less than all.
        """
        return OutputStream(self._connection, job_id, _selection(offset, fields), follow=follow)

    async def wait(self, job_id: str) -> Job:
        """Wait until a job has ended. Survives reconnects."""
        request = pb.WaitJobRequest(job_id=job_id)
        return job_from(await self._connection.call(lambda s: s.WaitJob, request, deadline=None))

    async def stop(self, job_id: str, *, grace: timedelta | float | None = None, signal: int | None = None) -> Job:
        """Ask a job to end, kill it after `grace` (a `timedelta` or seconds), and return when it has ended.

        `None` means the server's default: 10 seconds, SIGTERM. Raises `JobEndedError` if it had ended by itself. A
        stop goes on if its caller leaves.
        """
        time = None if grace is None else checked_grace("grace", grace)
        if signal is not None:
            check_signal("signal", signal)
        request = pb.StopJobRequest(
            job_id=job_id, grace=None if time is None else duration_message(time), signal=signal or 0
        )
        return job_from(await self._connection.call(lambda s: s.StopJob, request, deadline=None))

    async def signal(self, job_id: str, number: int) -> None:
        """Send a signal to a job. Not repeated when its answer is lost: that would send two."""
        check_signal("signal", number)
        request = pb.SignalJobRequest(job_id=job_id, signal=number)
        await self._connection.call(lambda s: s.SignalJob, request, deadline=self._timeouts.call, repeat=False)

    async def pause(self, job_id: str) -> Job:
        """Have a job stand still, its time limit included, until it is resumed. One that is paused stays so.

        Raises `JobEndedError`, and `PauseNotSupportedError` where the server cannot do it.
        """
        request = pb.PauseJobRequest(job_id=job_id)
        return job_from(await self._connection.call(lambda s: s.PauseJob, request, deadline=self._timeouts.call))

    async def resume(self, job_id: str) -> Job:
        """Let a paused job go on; one that is not paused goes on as it does."""
        request = pb.ResumeJobRequest(job_id=job_id)
        return job_from(await self._connection.call(lambda s: s.ResumeJob, request, deadline=self._timeouts.call))

    async def update(self, job_id: str, limits: Limits, *, clear: Iterable[str] = ()) -> Job:
        """Change the limits of a running job that are set in `limits`; those of `clear` become the server's default.

        All change, or none. Raises `JobEndedError`, `LimitAboveMaximumError` and `LimitNotEnforceableError`.
        """
        request = update_message(job_id, limits, clear)
        return job_from(await self._connection.call(lambda s: s.UpdateJob, request, deadline=self._timeouts.call))

    async def usage(self, job_id: str) -> Usage:
        """What a job has used up to now or, once it has ended, in all.

        Raises `JobEndedError` where nobody knows that, as of a job that was lost.
        """
        request = pb.GetUsageRequest(job_id=job_id)
        return usage_from(await self._connection.call(lambda s: s.GetUsage, request, deadline=self._timeouts.call))

    async def usages(
        self, *, owner: str | None = None, page_size: int = DEFAULT_PAGE_SIZE
    ) -> AsyncGenerator[tuple[Job, Usage]]:
        """The running jobs, newest first, each with what it has used up to now; asks for `page_size` at a time."""
        request = pb.ListUsagesRequest(page_size=page_size, owner=owner or "")
        while True:
            page = await self._connection.call(lambda s: s.ListUsages, request, deadline=self._timeouts.call)
            for one in page.usages:
                yield job_from(one.job), usage_from(one.usage)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def get(self, job_id: str) -> Job:
        """One job as it is now."""
        request = pb.GetJobRequest(job_id=job_id)
        return job_from(await self._connection.call(lambda s: s.GetJob, request, deadline=self._timeouts.call))

    async def list(self, where: JobFilter | None = None, *, page_size: int = DEFAULT_PAGE_SIZE) -> AsyncGenerator[Job]:
        """The jobs for which a filter holds, newest first; asks for `page_size` of them at a time."""
        where = JobFilter() if where is None else of_type("where", where, JobFilter, "JobFilter")
        token: str | None = None
        while token != "":  # which is the last page's
            request = filter_message(where, page_size=page_size, page_token=token)
            page = await self._connection.call(lambda s: s.ListJobs, request, deadline=self._timeouts.call)
            for message in page.jobs:  # each when it is wanted
                yield job_from(message)
            token = page.next_page_token

    async def remove(self, job_id: str) -> None:
        """Forget an ended job and delete its output. Raises `JobNotEndedError`."""
        attempts = count()

        def rpc(stub: JobServiceAsyncStub) -> grpc.aio.UnaryUnaryMultiCallable[pb.DeleteJobRequest, Empty]:
            next(attempts)
            return stub.DeleteJob

        try:
            await self._connection.call(rpc, pb.DeleteJobRequest(job_id=job_id), deadline=self._timeouts.call)
        except JobNotFoundError:
            if next(attempts) == 1:
                raise
            # an earlier attempt removed it, and its answer was lost

    async def server_info(self) -> ServerInfo:
        """What the server is and what it can enforce."""
        request = pb.GetServerInfoRequest()
        info = await self._connection.call(lambda s: s.GetServerInfo, request, deadline=self._timeouts.call)
        return ServerInfo(
            version=info.version,
            executor=info.executor,
            enforceable_limits=tuple(map(core_limit, info.enforceable_limits)),
            process_tracking=info.process_tracking,
            durability=info.durability,
            job_user=info.job_user,
            cgroups=info.cgroups,
            missing_limits={core_limit(one.limit): one.reason for one in info.missing_limits},
            limit_defaults=limits_from(info.limit_defaults),
            limit_maximums=limits_from(info.limit_maximums),
        )

    async def _kill(self, job_id: str) -> bool:
        """Whether the job was killed, rather than ended by itself in this moment."""
        try:
            await self.stop(job_id, grace=timedelta(0))
        except JobEndedError:
            return False
        return True


class _Output:
    """All output of a job, and apart that of each stream if it is told apart."""

    def __init__(self) -> None:
        self._all = bytearray()
        self._apart = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}

    async def keep(self, chunk: Chunk) -> None:
        self._all.extend(chunk.data)
        if chunk.stream is not Stream.COMBINED:
            self._apart[chunk.stream].extend(chunk.data)

    def result(self, job: Job, gaps: Iterable[Gap]) -> RunResult:
        output = bytes(self._all)
        stdout, stderr = (bytes(self._apart[stream]) for stream in (Stream.STDOUT, Stream.STDERR))
        if job.spec.output is OutputMode.COMBINED:
            stdout = output
        return RunResult(job=job, output=output, stdout=stdout, stderr=stderr, gaps=tuple(gaps))


def _selection(offset: int, fields: SelectionFields) -> Selection:
    if unknown := fields.keys() - SelectionFields.__annotations__.keys():
        raise TypeError(f"stream() got an unexpected keyword argument {min(unknown)!r}")
    return Selection(offset=offset, **cast("dict[str, Any]", fields))  # which checks the types


def _spec(command: Sequence[str] | JobSpec, fields: SpecFields) -> JobSpec:
    given = cast("dict[str, Any]", fields)  # the spec checks the types
    return replace(command, **given) if isinstance(command, JobSpec) else JobSpec(argv=cast("Any", command), **given)


def _message_of(spec: JobSpec) -> pb.JobSpec:
    try:
        return spec_message(spec)
    except UnicodeEncodeError as error:
        raise InvalidArgumentError("spec", f"{error.object!r} is not UTF-8, and nothing else can be sent") from None


def _address(server: str) -> Address:
    try:
        return Address.parse(server)
    except ValueError as error:
        raise InvalidArgumentError("server", str(error)) from None
