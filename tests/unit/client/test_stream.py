"""The output of a job arrives once, whole and in order, whatever the connection does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from jobworker.api.convert import time_message
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.client import Chunk, Gap, GapReason, SelectionFields, Stream
from jobworker.core.errors import (
    InternalError,
    InvalidArgumentError,
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
    Piece,
    Step,
    client_of,
    fail,
    gap,
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


async def test_what_is_missing_is_told_apart_from_what_is_there() -> None:
    """Gaps are no chunks and no holes; one that grows is one, and what comes after it has its right offset."""
    messages = [
        gap(0, 2, pb.OutputGap.TRIMMED),
        piece(2, b"c"),
        gap(3, 1),
        gap(4, 2),
        gap(6, 1, pb.OutputGap.DISK_FULL),
        piece(7, b"h"),
        last(8),
    ]
    async with scripted_server(stream(messages)) as script, client_of(script) as client:
        output = client.stream(ID)
        chunks = [chunk async for chunk in output]
    assert chunks == [Chunk(offset=2, data=b"c"), Chunk(offset=7, data=b"h")]
    assert output.gaps == [
        Gap(offset=0, length=2, reason=GapReason.TRIMMED),
        Gap(offset=3, length=3, reason=GapReason.LIMIT),
        Gap(offset=6, length=1, reason=GapReason.DISK_FULL),
    ]
    assert output.offset == 8


@pytest.mark.parametrize("begins", [{"tail": 1}, {"since": datetime(2026, 1, 1, tzinfo=UTC)}], ids=["tail", "since"])
async def test_it_begins_where_the_server_finds_the_beginning(begins: SelectionFields) -> None:
    """Of the first piece the offset is not known before; from there on a hole is a cut, and the rest is asked for."""
    cut = stream([piece(7, b"a"), piece(9, b"c")])
    async with scripted_server(cut, stream([piece(8, b"bc"), last(10)])) as script, client_of(script) as client:
        chunks = [chunk async for chunk in client.stream(ID, **begins)]
    assert [(chunk.offset, chunk.data) for chunk in chunks] == [(7, b"a"), (8, b"bc")]
    assert [(one.offset, one.HasField("tail_lines"), one.HasField("since")) for one in script.requests] == [
        (0, "tail" in begins, "since" in begins),
        (8, False, False),
    ]


async def test_a_beginning_that_was_told_is_where_it_goes_on() -> None:
    """A cut before there is any output: the tail is not looked for anew, which would leave out what came meanwhile."""
    cut = stream([piece(7, b"")])
    async with scripted_server(cut, stream([piece(7, b"a"), last(8)])) as script, client_of(script) as client:
        assert [chunk.data async for chunk in client.stream(ID, tail=0)] == [b"a"]
    assert [(one.offset, one.HasField("tail_lines")) for one in script.requests] == [(0, True), (7, False)]


async def test_a_beginning_that_was_not_found_is_looked_for_again() -> None:
    """A cut before the first piece changes nothing in what is asked for."""
    cut = fail(grpc.StatusCode.UNAVAILABLE)
    async with scripted_server(cut, stream([piece(7, b"a"), last(8)])) as script, client_of(script) as client:
        assert [chunk.data async for chunk in client.stream(ID, tail=3)] == [b"a"]
    assert [request.tail_lines for request in script.requests] == [3, 3]


async def test_a_stream_of_one_kind_has_holes_where_the_others_are() -> None:
    """They are no cuts; each chunk says where it came from and when, and a real cut is mended after the last one."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def error(offset: int, data: bytes) -> Piece:
        return Piece(offset=offset, data=data, stream=Piece.STDERR, time=time_message(noon))

    first, second = stream([error(3, b"a"), error(9, b"b")]), stream([error(12, b"c"), last(20)])
    async with scripted_server(first, second) as script, client_of(script) as client:
        output = client.stream(ID, streams=[Stream.STDERR], times=True)
        chunks = [chunk async for chunk in output]
    assert chunks == [
        Chunk(offset=offset, data=data, stream=Stream.STDERR, time=noon)
        for offset, data in ((3, b"a"), (9, b"b"), (12, b"c"))
    ]
    assert [(one.offset, list(one.streams), one.times) for one in script.requests] == [
        (0, [Piece.STDERR], True),
        (10, [Piece.STDERR], True),
    ]
    assert output.offset == 20


async def test_output_that_was_given_up_during_a_cut_is_a_gap() -> None:
    """Where the next byte is not kept any more when the connection is back, the stream goes on at the first that is."""
    gone = refuse(OffsetOutOfRangeError(ID, offset=3, first=6, end=9))
    cut = stream([piece(0, b"abc")], fail(grpc.StatusCode.UNAVAILABLE))
    async with scripted_server(cut, gone, stream([piece(6, b"ghi"), last(9)])) as script, client_of(script) as client:
        output = client.stream(ID)
        assert [chunk.data async for chunk in output] == [b"abc", b"ghi"]
    assert [request.offset for request in script.requests] == [0, 3, 6]
    assert output.gaps == [Gap(offset=3, length=3, reason=GapReason.TRIMMED)]


async def test_an_offset_that_was_asked_for_and_is_not_kept_is_an_error() -> None:
    """Whoever names an offset is told that it is gone, with those that there are."""
    gone = refuse(OffsetOutOfRangeError(ID, offset=3, first=6, end=9))
    async with scripted_server(gone) as script, client_of(script) as client:
        with pytest.raises(OffsetOutOfRangeError) as raised:
            await anext(client.stream(ID, 3))
    assert (raised.value.first, raised.value.end) == (6, 9)


@pytest.mark.parametrize("streams", [["STDOOT"], ["STDERR", "stdin"]])
async def test_what_is_no_stream_is_refused(streams: list[Stream]) -> None:
    """Before anything is sent."""
    async with scripted_server() as script, client_of(script) as client:
        with pytest.raises(InvalidArgumentError):
            client.stream(ID, streams=streams)
