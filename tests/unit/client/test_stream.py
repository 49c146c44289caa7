"""The output of a job arrives once, whole and in order, whatever the connection does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest

from jobworker.core.errors import (
    InternalError,
    JobNotFoundError,
    JobworkerError,
    OffsetOutOfRangeError,
    QuotaExceededError,
    ServerUnavailableError,
    StoreError,
)
from tests.unit.client.scripted import (
    ENDED,
    RUNNING,
    Step,
    client_of,
    fail,
    hang,
    last,
    piece,
    refuse,
    scripted_server,
    stream,
)

ID = ENDED.id


@pytest.mark.parametrize(
    "cut",
    [
        stream([piece(0, b"abc")], fail(grpc.StatusCode.UNAVAILABLE)),
        stream([piece(0, b"abc")], fail(grpc.StatusCode.CANCELLED)),
        stream([piece(0, b"abc")], fail(grpc.StatusCode.INTERNAL, "RST_STREAM")),
        stream([piece(0, b"abc")], fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls")),
        stream([piece(0, b"abc")], refuse(ServerUnavailableError("shutting down"))),
        stream([piece(0, b"abc")]),
        stream([piece(0, b"abc"), piece(5, b"fg")]),
    ],
    ids=[
        "unavailable",
        "cancelled by the server",
        "reset",
        "too many calls",
        "shutting down",
        "ended without its last message",
        "gap",
    ],
)
async def test_goes_on_at_the_byte_after_a_cut(cut: Step) -> None:
    """Whatever cuts a stream, it is asked for again at the offset of the first byte that is missing."""
    async with scripted_server(cut, stream([piece(3, b"def"), last(6)])) as script, client_of(script) as client:
        output = client.stream(ID)
        chunks = [chunk async for chunk in output]
    assert [(chunk.offset, chunk.data) for chunk in chunks] == [(0, b"abc"), (3, b"def")]
    assert [request.offset for request in script.requests] == [0, 3]
    assert output.job == ENDED
    assert output.offset == 6


async def test_drops_what_it_has_already() -> None:
    """Bytes that arrive a second time are not given a second time."""
    messages = [piece(0, b"abc"), piece(0, b"abc"), piece(1, b"bcde"), last(5)]
    async with scripted_server(stream(messages)) as script, client_of(script) as client:
        assert b"".join([chunk.data async for chunk in client.stream(ID)]) == b"abcde"


async def test_no_message_but_the_last_ends_it() -> None:
    """A job that has ended with bytes missing is not the end; the rest is asked for."""
    early = stream([piece(0, b"ab"), last(4)])
    async with scripted_server(early, stream([piece(2, b"cd"), last(4)])) as script, client_of(script) as client:
        assert b"".join([chunk.data async for chunk in client.stream(ID)]) == b"abcd"


async def test_without_follow_it_ends_with_a_job_that_runs() -> None:
    """The last message may hold a job that runs, and the request says whether to follow."""
    async with scripted_server(stream([last(0, RUNNING)])) as script, client_of(script) as client:
        output = client.stream(ID, follow=False)
        assert [chunk async for chunk in output] == []
    assert output.job == RUNNING
    assert not script.requests[0].follow


@pytest.mark.parametrize(
    "error",
    [
        JobNotFoundError(ID),
        OffsetOutOfRangeError(ID, offset=9, first=0, end=3),
        StoreError("the job database cannot be used"),
        InternalError("1234"),
        QuotaExceededError("open streams", 3),
    ],
    ids=["not found", "out of range", "store", "internal", "quota"],
)
async def test_an_answer_that_will_not_change_is_raised(error: JobworkerError) -> None:
    """Errors of the request or the server's database come through as they are, at once."""
    async with scripted_server(refuse(error)) as script, client_of(script) as client:
        with pytest.raises(type(error)) as raised:
            await anext(client.stream(ID, 9))
    assert vars(raised.value) == vars(error)
    assert str(raised.value) == str(error)


async def test_without_reconnecting_a_cut_is_an_error() -> None:
    """With a reconnect timeout of zero the first cut raises, after all that arrived was given."""
    cut = stream([piece(0, b"abc")], fail(grpc.StatusCode.UNAVAILABLE))
    async with scripted_server(cut) as script, client_of(script, reconnect=timedelta(0)) as client:
        output = client.stream(ID)
        assert (await anext(output)).data == b"abc"
        with pytest.raises(ServerUnavailableError):
            await anext(output)


async def test_a_cancelled_step_loses_nothing() -> None:
    """After a step was cancelled, the next one goes on where the last whole one ended."""
    entered, left = asyncio.Event(), asyncio.Event()
    silent = stream([piece(0, b"abc")], hang(entered, left))
    async with scripted_server(silent, stream([piece(3, b"d"), last(4)])) as script, client_of(script) as client:
        output = client.stream(ID)
        assert (await anext(output)).data == b"abc"
        step = asyncio.ensure_future(anext(output))
        await entered.wait()
        await asyncio.sleep(0)  # the step begins to read
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        await left.wait()
        assert [chunk.data async for chunk in output] == [b"d"]


async def test_closing_leaves_the_server() -> None:
    """Closing a stream ends the call on the server, so that a follower that has left costs it nothing."""
    entered, left = asyncio.Event(), asyncio.Event()
    async with scripted_server(stream([piece(0, b"a")], hang(entered, left))) as script, client_of(script) as client:
        output = client.stream(ID)
        await anext(output)
        await output.aclose()
        await left.wait()
