"""Whatever of ours is killed, jobs and the truth about them are not lost."""

from __future__ import annotations

import asyncio
import signal

import pytest

from jobworker.client import OutputStream
from jobworker.core.state import Cause, JobState
from tests.support.machine import Machine, Script, kill, processes_with, spawner_of, supervisor_of, wait_for_end_of
from tests.support.polling import until_job

pytestmark = pytest.mark.system

TREE = "sleep 4242.5 & setsid sleep 4243.5 & sleep 4244.5"


async def test_a_job_does_not_notice_the_kill_of_the_server(machine: Machine, script: Script) -> None:
    """The follower gets every byte once, across kill -9, and the exit code is kept."""
    with machine.server() as first:
        async with machine.client() as client:
            job = await client.start(script.argv)
            stream = client.stream(job.id)
            script.write("before")
            assert (await anext(stream)).data == b"before\n"
            assert first.end(signal.SIGKILL) == -signal.SIGKILL
            script.write("while nobody was there")
            rest = asyncio.create_task(_rest_of(stream))
            with machine.server():
                script.write("after")
                script.end()
                assert await rest == b"while nobody was there\nafter\n"
                end = (await client.wait(job.id)).end
                assert end is not None
                assert (end.cause, end.exit_code, end.output_bytes) == (Cause.EXITED, 7, len(b"before\n") + 29)


async def test_an_end_without_a_server_is_recorded(machine: Machine, script: Script) -> None:
    """A job that ends while no server is there has its exit code and all of its output afterwards."""
    with machine.server() as first:
        async with machine.client() as client:
            job = await client.start(script.argv)
            supervisor = supervisor_of(job.id)
        first.end(signal.SIGKILL)
    script.write("last words")
    script.end()
    wait_for_end_of(supervisor)
    with machine.server():
        async with machine.client() as client:
            job = await client.get(job.id)
            assert job.end is not None
            assert (job.end.cause, job.end.exit_code) == (Cause.EXITED, 7)
            assert b"".join([chunk.data async for chunk in client.stream(job.id)]) == b"last words\n"


async def test_a_stop_goes_on_without_the_server(machine: Machine, script: Script) -> None:
    """A server that is killed in the middle of a stop finishes nothing: the stop finishes by itself."""
    with machine.server() as first:
        async with machine.client() as client:
            job = await client.start(
                ["sh", "-c", f'trap "read -r line <{script.path}; exit 3" TERM; echo up; while :; do sleep 0.01; done']
            )
            stream = client.stream(job.id)
            await anext(stream)
            stopping = asyncio.create_task(client.stop(job.id))
            await until_job(client.get, job.id, lambda job: job.stop)
            first.end(signal.SIGKILL)
            with machine.server():
                assert (await client.get(job.id)).stop is not None
                script.write("go")
                stopped = await stopping
                assert stopped.state is JobState.STOPPED
                assert stopped.stop is not None
                assert stopped.stop.requested_by == "alice"


async def test_a_killed_supervisor_loses_one_job(machine: Machine, script: Script) -> None:
    """Its job is LOST, its processes are gone, its output so far can be read; another job does not notice."""
    with machine.server():
        async with machine.client() as client:
            other = await client.start(script.argv)
            job = await client.start(["sh", "-c", f"echo so far; {TREE}"])
            assert (await anext(client.stream(job.id))).data == b"so far\n"
            kill(supervisor_of(job.id))
            lost = await client.wait(job.id)
            assert lost.state is JobState.LOST
            assert not [pid for each in ("4242.5", "4243.5", "4244.5") for pid in processes_with(each)]
            assert b"".join([chunk.data async for chunk in client.stream(job.id)]) == b"so far\n"
            script.end()
            end = (await client.wait(other.id)).end
            assert end is not None
            assert end.exit_code == 7


async def test_a_job_that_is_lost_without_a_server(machine: Machine) -> None:
    """A supervisor that dies while no server is there: the next server ends what is left and says LOST."""
    with machine.server() as first:
        async with machine.client() as client:
            job = await client.start(["sh", "-c", f"echo so far; {TREE}"])
            await anext(client.stream(job.id))
        first.end(signal.SIGKILL)
    kill(supervisor_of(job.id))
    with machine.server():
        async with machine.client() as client:
            assert (await client.wait(job.id)).state is JobState.LOST
            assert not [pid for each in ("4242.5", "4243.5", "4244.5") for pid in processes_with(each)]


async def test_a_killed_spawner_is_replaced(machine: Machine, script: Script) -> None:
    """Running jobs do not notice, and the next start works."""
    with machine.server() as server:
        async with machine.client() as client:
            job = await client.start(script.argv)
            kill(spawner_of(server))
            result = await client.run(["echo", "new"])
            assert result.output == b"new\n"
            script.end()
            end = (await client.wait(job.id)).end
            assert end is not None
            assert end.exit_code == 7


async def test_an_orderly_end_leaves_jobs_running(machine: Machine, script: Script) -> None:
    """SIGTERM ends the server with 0, and its follower goes on with the next server."""
    with machine.server() as first:
        async with machine.client() as client:
            job = await client.start(script.argv)
            rest = asyncio.create_task(_rest_of(client.stream(job.id)))
            script.write("one")
            assert await asyncio.to_thread(first.end) == 0
            with machine.server():
                script.write("two")
                script.end()
                assert await rest == b"one\ntwo\n"


async def test_a_stop_reaches_the_whole_tree(machine: Machine) -> None:
    """Children, and those that have left the session, are gone when the stop is answered."""
    with machine.server():
        async with machine.client() as client:
            job = await client.start(["sh", "-c", TREE])
            stopped = await client.stop(job.id)
            assert stopped.state is JobState.STOPPED
            assert not [pid for each in ("4242.5", "4243.5", "4244.5") for pid in processes_with(each)]


async def _rest_of(stream: OutputStream) -> bytes:
    return b"".join([chunk.data async for chunk in stream])
