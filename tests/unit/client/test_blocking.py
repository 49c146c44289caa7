"""`Client` works in any thread and beside any event loop, and keeps no program from ending."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from jobworker.client import AsyncClient, Client
from jobworker.core.errors import JobNotFoundError
from tests.unit.client.scripted import (
    ALICE,
    AUTHORITY,
    ENDED,
    RUNNING,
    Script,
    answer,
    last,
    piece,
    refuse,
    scripted_server,
    stream,
)


def client_of(script: Script) -> Client:
    """A client of a scripted server."""
    return Client(script.address, ca=AUTHORITY.certificate, cert=ALICE.certificate, key=ALICE.key)


async def test_beside_a_running_loop() -> None:
    """It can be called from a thread while another event loop runs, with gRPC at work in both."""
    steps = answer(), stream([piece(0, b"ab"), piece(2, b"c"), last(3)]), refuse(JobNotFoundError("x"))

    def work(script: Script) -> None:
        with client_of(script) as client:
            assert client.start(["true"]) == RUNNING
            with client.stream(ENDED.id) as output:
                assert [(chunk.offset, chunk.data) for chunk in output] == [(0, b"ab"), (2, b"c")]
                assert (output.job, output.offset, output.job_id) == (ENDED, 3, ENDED.id)
            with pytest.raises(JobNotFoundError):
                client.get("x")

    async with scripted_server(*steps) as script:
        await asyncio.to_thread(work, script)


async def test_in_several_threads() -> None:
    """One client serves several threads at once."""

    def work(script: Script) -> None:
        with client_of(script) as client:
            threads = [threading.Thread(target=client.get, args=(RUNNING.id,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    async with scripted_server(*(answer() for _ in range(8))) as script:
        await asyncio.to_thread(work, script)
    assert len(script.requests) == 8


def test_closed_is_closed() -> None:
    """After closing, once or twice, a call says so, and no thread is left."""
    client = Client("localhost:1", ca=b"", cert=b"", key=b"")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get("x")
    assert not [thread for thread in threading.enumerate() if thread.name == "jobworker-client"]


def test_an_abandoned_client_lets_the_program_end() -> None:
    """A program that forgets to close its client ends as if it had not, without a word."""
    code = "from jobworker.client import Client; c = Client('localhost:1', ca=b'', cert=b'', key=b''); print('end')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.parametrize(
    "name", [name for name in dir(AsyncClient) if not name.startswith("_") and name != "connected"]
)
def test_every_method_is_there_and_described(name: str) -> None:
    """Whoever uses it need not read about another class."""
    description = getattr(Client, name).__doc__
    assert description
    assert "AsyncClient" not in description
