"""The Python client against a real server."""

from __future__ import annotations

import asyncio
import signal
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from jobworker.client import AsyncClient, Client, JobFailedError, RunTimeoutError
from jobworker.core.errors import (
    CommandNotStartedError,
    InvalidArgumentError,
    JobEndedError,
    JobNotEndedError,
    JobNotFoundError,
    OffsetOutOfRangeError,
    PermissionDeniedError,
    RequestIdReusedError,
    UnauthenticatedError,
)
from jobworker.core.query import JobFilter
from jobworker.core.spec import ChildPolicy
from jobworker.core.state import Cause, JobState
from tests.support.server import Server, running_server

# Writes "first", and when it is told to, "second".
IN_TWO_HALVES = "trap 'echo second; exit 7' USR1; echo first; while :; do (trap '' USR1; exec sleep 0.05); done"


def client_of(server: Server, name: str = "alice", roles: str | None = "user") -> AsyncClient:
    """A client with a certificate."""
    certificate = server.client(name, roles=roles)
    return AsyncClient(
        server.address, ca=server.authority.certificate, cert=certificate.certificate, key=certificate.key
    )


async def test_run(server: Server) -> None:
    """Run gives the code and the bytes, and the job says the rest."""
    async with client_of(server) as client:
        result = await client.run(["sh", "-c", r"printf '\377\0'; echo $A >&2; exit 3"], env={"A": "b"}, name="n")
    assert (result.exit_code, result.output) == (3, b"\xff\0b\n")
    assert (result.job.spec.name, result.job.owner, result.job.state) == ("n", "alice", JobState.FINISHED)


async def test_run_with_check(server: Server) -> None:
    """With check, success is returned and failure raised."""
    async with client_of(server) as client:
        await client.run(["true"], check=True)
        with pytest.raises(JobFailedError) as raised:
            await client.run(["sh", "-c", "echo why; exit 1"], check=True)
    assert raised.value.result.output == b"why\n"


async def test_run_with_a_timeout_in_seconds(server: Server) -> None:
    """As `subprocess.run`: a number is one of seconds, and the job does not outlive it; so it is with a time limit."""
    async with client_of(server) as client:
        with pytest.raises(RunTimeoutError) as raised:
            await client.run(["sleep", "1000"], timeout=0.5)
        limited = await client.run(["sleep", "1000"], time_limit=0.5, cwd=Path("/"), output="split")
    assert raised.value.result.job.state is JobState.STOPPED
    assert limited.job.end is not None
    assert limited.job.end.cause is Cause.TIMED_OUT


async def test_run_with_timeout(server: Server) -> None:
    """After its timeout the job is killed, whatever it thinks of that, and the output up to there is there."""
    async with client_of(server) as client:
        with pytest.raises(RunTimeoutError) as raised:
            await client.run(
                ["sh", "-c", "trap '' TERM; echo started; while :; do sleep 0.05; done"], timeout=timedelta(seconds=1)
            )
    result = raised.value.result
    assert result.output == b"started\n"
    assert (result.job.state, result.exit_code) == (JobState.STOPPED, 128 + signal.SIGKILL)


async def test_start_and_spec(server: Server) -> None:
    """What is asked for is what the job says it was asked for."""
    async with client_of(server) as client:
        job = await client.start(
            ["sleep", "60"],
            cwd="/usr",
            env={"A": "b"},
            labels={"k": "v"},
            time_limit=timedelta(minutes=1),
            child_policy=ChildPolicy.WAIT,
        )
        assert await client.get(job.id) == job
        await client.stop(job.id, grace=timedelta(0))
    spec = job.spec
    assert (spec.cwd, dict(spec.env), dict(spec.labels)) == ("/usr", {"A": "b"}, {"k": "v"})
    assert (spec.time_limit, spec.child_policy) == (timedelta(minutes=1), ChildPolicy.WAIT)


async def test_request_ids(server: Server) -> None:
    """The same request id gives the same job, another command under it is an error."""
    request_id = str(uuid.uuid4())
    async with client_of(server) as client:
        first = await client.start(["true"], request_id=request_id)
        second = await client.start(["true"], request_id=request_id)
        assert first.id == second.id
        with pytest.raises(RequestIdReusedError):
            await client.start(["false"], request_id=request_id)


async def test_stream_from_every_offset(server: Server) -> None:
    """A stream from an offset is exactly the rest, and past the end an error with the valid range."""
    async with client_of(server) as client:
        whole = (await client.run(["printf", "abcdef"])).job
        for offset in range(7):
            stream = client.stream(whole.id, offset)
            assert b"".join([chunk.data async for chunk in stream]) == b"abcdef"[offset:]
            assert stream.job == whole
        with pytest.raises(OffsetOutOfRangeError) as raised:
            await anext(client.stream(whole.id, 7))
    assert (raised.value.first, raised.value.end) == (0, 6)


async def test_signal_stop_wait_remove(server: Server) -> None:
    """Each does what it says, and refuses what is too late or too early, with errors that say which job."""
    async with client_of(server) as client:
        job = await client.start(["sh", "-c", IN_TWO_HALVES])
        with pytest.raises(JobNotEndedError):
            await client.remove(job.id)
        stream = client.stream(job.id)
        assert (await anext(stream)).data == b"first\n"
        await client.signal(job.id, signal.SIGUSR1)
        ended = await client.wait(job.id)
        assert ended.end is not None
        assert (ended.end.cause, ended.end.exit_code) == (Cause.EXITED, 7)
        assert [chunk.data async for chunk in stream] == [b"second\n"]
        for late in (client.signal(job.id, 1), client.stop(job.id)):
            with pytest.raises(JobEndedError, match=job.id):
                await late
        await client.remove(job.id)
        with pytest.raises(JobNotFoundError):
            await client.get(job.id)


async def test_list_goes_through_all_pages(server: Server) -> None:
    """The list is whole, newest first, however small its pages."""
    async with client_of(server, "lister") as client:
        ids = [(await client.start(["true"], labels={"n": str(n % 2)})).id for n in range(5)]
        assert [job.id async for job in client.list(page_size=2)] == ids[::-1]
        assert [job.id async for job in client.list(JobFilter(labels={"n": "1"}), page_size=1)] == [ids[3], ids[1]]


async def test_errors(server: Server) -> None:
    """Errors are those of core, with their attributes."""
    async with client_of(server) as client:
        with pytest.raises(CommandNotStartedError) as raised:
            await client.start(["no-such-command"])
        assert (raised.value.not_found, raised.value.subject) == (True, "no-such-command")
        with pytest.raises(InvalidArgumentError, match=r"spec\.cwd"):
            await client.start(["true"], cwd="relative")
        with pytest.raises(JobNotFoundError):
            await client.wait(str(uuid.uuid4()))


async def test_refused_callers(server: Server) -> None:
    """A certificate without a valid role is refused with the reason, not taken for a broken connection."""
    for name, roles in (("norole", None), ("king", "king")):
        async with client_of(server, name, roles) as client:
            with pytest.raises((UnauthenticatedError, PermissionDeniedError), match="role"):
                await client.server_info()


async def test_server_info(server: Server) -> None:
    """The server says what it is."""
    async with client_of(server) as client:
        info = await client.server_info()
    assert (info.executor, info.enforceable_limits) == ("local", ())


def test_blocking_client(server: Server) -> None:
    """`Client` does the same without async."""
    certificate = server.client("blocking").write(server.directory, "blocking")
    with Client(server.address, ca=server.ca, cert=certificate.certificate, key=certificate.key) as client:
        assert client.run(["echo", "hello"], check=True).output == b"hello\n"
        job = client.start(["sh", "-c", IN_TWO_HALVES])
        with client.stream(job.id) as stream:
            assert next(stream).data == b"first\n"
            client.signal(job.id, signal.SIGUSR1)
            assert [chunk.data for chunk in stream] == [b"second\n"]
        assert client.wait(job.id) == client.get(job.id)
        assert next(client.list()).id == job.id
        assert len(list(client.list())) == 2
        with pytest.raises(JobEndedError):
            client.stop(job.id)
        client.remove(job.id)
        assert client.server_info().executor == "local"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_outage(tmp_path: Path, number: signal.Signals) -> None:
    """A wait and a stream outlive the server's crash or end, and calls go on when it is back."""
    with running_server(tmp_path, stop_jobs=False) as server:
        async with client_of(server) as client:
            job = await client.start(["sh", "-c", IN_TWO_HALVES])
            stream = client.stream(job.id)
            assert (await anext(stream)).data == b"first\n"
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(client.wait(job.id))
                await asyncio.to_thread(server.end, number)
                with running_server(tmp_path, "--listen", server.address, authority=server.authority):
                    assert (await client.get(job.id)).state is JobState.RUNNING
                    await client.signal(job.id, signal.SIGUSR1)
                    assert [chunk.data async for chunk in stream] == [b"second\n"]
                    assert await waiting == stream.job
