"""The client for programs that are not asynchronous."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from jobworker.client.aio import AsyncClient, SelectionFields, SpecFields
from jobworker.client.connection import Timeouts
from jobworker.client.credentials import Pem
from jobworker.client.results import RunResult, ServerInfo
from jobworker.client.stream import OutputStream
from jobworker.core.job import Job
from jobworker.core.limits import Limits
from jobworker.core.output import Chunk, Gap
from jobworker.core.query import DEFAULT_PAGE_SIZE, JobFilter
from jobworker.core.spec import JobSpec
from jobworker.core.usage import Usage

T = TypeVar("T")


class Client:
    """`AsyncClient` without async: the same methods, arguments and errors, each blocking until it has its answer.

    It runs an event loop in a thread of its own, so it works in any thread, and where another event loop runs. Its
    methods may be called from several threads at once.
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
        self._client = AsyncClient(
            server, ca=ca, cert=cert, key=key, timeouts=timeouts, on_outage=on_outage, on_recovery=on_recovery
        )
        self._loop = _LoopThread()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and end the thread. Jobs are not touched. Closing twice is no error."""
        if self._loop.running:
            self._loop.run(self._client.close())
            self._loop.stop()

    def start(
        self, command: Sequence[str] | JobSpec, *, request_id: str | None = None, **fields: Unpack[SpecFields]
    ) -> Job:
        """Start a command, given as its argv and the other fields of its spec, or as a whole spec.

        Keywords: `request_id` and those of `SpecFields` (`env`, `cwd`, `time_limit`, ...). It starts one job, however
        often it has to be sent.
        """
        return self._loop.run(self._client.start(command, request_id=request_id, **fields))

    def run(
        self,
        command: Sequence[str] | JobSpec,
        *,
        check: bool = False,
        timeout: timedelta | float | None = None,
        request_id: str | None = None,
        **fields: Unpack[SpecFields],
    ) -> RunResult:
        """Start a command and wait for its end; like `subprocess.run`. Keywords: as of `start`, and these.

        After `timeout`, a `timedelta` or seconds, the job is killed, and `RunTimeoutError` raised. With `check`,
        `JobFailedError` is raised unless it exits with 0. Both carry the result.
        """
        return self._loop.run(self._client.run(command, check=check, timeout=timeout, request_id=request_id, **fields))

    def stream(
        self, job_id: str, offset: int = 0, *, follow: bool = True, **fields: Unpack[SelectionFields]
    ) -> BlockingOutputStream:
        """The job's output from a byte offset on: what is there and, with `follow`, what comes until its end.

        Keywords for less than all: `tail` (lines), `streams`, `since`, `until` (aware times); `times` asks for the time
        of each chunk. What is missing of the output shows in the iterator's `gaps`.
        """
        return BlockingOutputStream(self._client.stream(job_id, offset, follow=follow, **fields), self._loop)

    def wait(self, job_id: str) -> Job:
        """Wait until a job has ended. Survives reconnects."""
        return self._loop.run(self._client.wait(job_id))

    def stop(self, job_id: str, *, grace: timedelta | float | None = None, signal: int | None = None) -> Job:
        """Ask a job to end, kill it after `grace` (a `timedelta` or seconds), and return when it has ended.

        `None` means the server's default: 10 seconds, SIGTERM. Raises `JobEndedError` if it had ended by itself.
        """
        return self._loop.run(self._client.stop(job_id, grace=grace, signal=signal))

    def signal(self, job_id: str, number: int) -> None:
        """Send a signal, by its number, to a job. Not repeated when its answer is lost: that would send two."""
        self._loop.run(self._client.signal(job_id, number))

    def pause(self, job_id: str) -> Job:
        """Have a job stand still, its time limit included, until it is resumed.

        Raises `JobEndedError`, and `PauseNotSupportedError` where the server cannot do it.
        """
        return self._loop.run(self._client.pause(job_id))

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on; one that is not paused goes on as it does."""
        return self._loop.run(self._client.resume(job_id))

    def update(self, job_id: str, limits: Limits, *, clear: Iterable[str] = ()) -> Job:
        """Change the limits of a running job that are set in `limits`; those of `clear` become the server's default.

        All change, or none. Raises `JobEndedError`, `LimitAboveMaximumError` and `LimitNotEnforceableError`.
        """
        return self._loop.run(self._client.update(job_id, limits, clear=clear))

    def usage(self, job_id: str) -> Usage:
        """What a job has used up to now or, once it has ended, in all.

        Raises `JobEndedError` where nobody knows that, as of a job that was lost.
        """
        return self._loop.run(self._client.usage(job_id))

    def usages(self, *, owner: str | None = None, page_size: int = DEFAULT_PAGE_SIZE) -> Iterator[tuple[Job, Usage]]:
        """The running jobs, newest first, each with what it has used up to now; asks for `page_size` at a time."""
        usages = self._client.usages(owner=owner, page_size=page_size)
        while (one := self._loop.run(_next(usages))) is not None:
            yield one

    def get(self, job_id: str) -> Job:
        """One job as it is now."""
        return self._loop.run(self._client.get(job_id))

    def list(self, where: JobFilter | None = None, *, page_size: int = DEFAULT_PAGE_SIZE) -> Iterator[Job]:
        """The jobs for which a filter holds, newest first; asks for `page_size` of them at a time."""
        jobs = self._client.list(where, page_size=page_size)
        while (job := self._loop.run(_next(jobs))) is not None:
            yield job

    def remove(self, job_id: str) -> None:
        """Forget an ended job and delete its output. Raises `JobNotEndedError`."""
        self._loop.run(self._client.remove(job_id))

    def server_info(self) -> ServerInfo:
        """What the server is and what it can enforce."""
        return self._loop.run(self._client.server_info())


class BlockingOutputStream:
    """An iterator over a job's output; see `OutputStream`. A context manager that closes it."""

    def __init__(self, stream: OutputStream, loop: _LoopThread) -> None:
        self._stream = stream
        self._loop = loop

    @property
    def job_id(self) -> str:
        """Id of the job."""
        return self._stream.job_id

    @property
    def job(self) -> Job | None:
        """The job as it was at the end of the stream; `None` until then."""
        return self._stream.job

    @property
    def offset(self) -> int:
        """Position of the next byte in the job's output."""
        return self._stream.offset

    @property
    def gaps(self) -> list[Gap]:
        """What is missing of the output so far."""
        return self._stream.gaps

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        chunk = self._loop.run(_next(self._stream))
        if chunk is None:
            raise StopIteration
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; the job is not touched."""
        self._loop.run(self._stream.aclose())


class _LoopThread:
    """An event loop that runs in a thread until it is stopped, is no longer used, or the program ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run_loop, args=(self._loop,), name="jobworker-client", daemon=True)
        thread.start()
        # A daemon thread, because a client that nobody closed must not keep the program from ending; and stopped by a
        # finalizer, because a thread that still runs while the interpreter dies takes gRPC down with a crash.
        self.stop = weakref.finalize(self, _stop_loop, self._loop, thread)

    @property
    def running(self) -> bool:
        return self.stop.alive

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it in the loop and wait for what it gives; if the wait is interrupted, it is cancelled."""
        if not self.running:
            coroutine.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    # Not a method of _LoopThread: the thread must not keep it alive.
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()


def _stop_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():  # it is, where that thread collects the garbage
        thread.join()


async def _next(iterator: AsyncIterator[T]) -> T | None:
    return await anext(iterator, None)
