"""Streams told apart, parts of an output and what is missing of it, through the Python client and a real server."""

from __future__ import annotations

import pytest

from jobworker.client import Client, Gap, GapReason, OutputLimit, OutputMode, OverflowPolicy, Stream
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.state import Cause
from tests.integration.client.test_client import client_of
from tests.support.server import Server

LIMIT = 64 * 1024
NUMBERS = b"".join(b"%d\n" % number for number in range(1, 100_001))


async def test_run_has_both_streams(server: Server) -> None:
    """Apart if they are split, and as one in any case; nothing is missing."""
    command = ["sh", "-c", r"printf 'o\377'; echo err >&2"]
    async with client_of(server) as client:
        split = await client.run(command, output=OutputMode.SPLIT)
        combined = await client.run(command)
    assert (split.stdout, split.stderr, split.gaps) == (b"o\xff", b"err\n", ())
    assert sorted(split.output) == sorted(b"o\xfferr\n")
    assert (combined.output, combined.stdout, combined.stderr) == (b"o\xfferr\n", b"o\xfferr\n", b"")
    assert (split.job.spec.output, combined.job.spec.output) == (OutputMode.SPLIT, OutputMode.COMBINED)


@pytest.mark.parametrize("stream", [Stream.STDOUT, Stream.STDERR])
async def test_one_stream_with_times(server: Server, stream: Stream) -> None:
    """Its chunks are those that all chunks have of it; each has a time, in order, and a later look at less fits in."""
    script = "for i in $(seq 200); do echo o$i; echo e$i >&2; done"
    async with client_of(server) as client:
        job = (await client.run(["sh", "-c", script], output=OutputMode.SPLIT)).job
        every = [chunk async for chunk in client.stream(job.id, times=True)]
        one = [chunk async for chunk in client.stream(job.id, streams=[stream], times=True)]
        assert one == [chunk for chunk in every if chunk.stream is stream]
        times = [chunk.time for chunk in every if chunk.time is not None]
        assert len(times) == len(every)
        assert times == sorted(times)
        middle = times[len(times) // 2]
        later = [chunk async for chunk in client.stream(job.id, since=middle, times=True)]
        earlier = [chunk async for chunk in client.stream(job.id, until=middle, times=True)]
    assert earlier + later == every
    assert b"".join(chunk.data for chunk in one) == b"".join(
        b"%c%d\n" % (b"e" if stream is Stream.STDERR else b"o", number) for number in range(1, 201)
    )


async def test_what_came_after_the_limit_is_a_gap(server: Server) -> None:
    """The job goes on, its offsets count what it wrote, and its readers are told."""
    limit = OutputLimit(size=LIMIT, policy=OverflowPolicy.DROP)
    async with client_of(server) as client:
        result = await client.run(["seq", "100000"], output_limit=limit)
    gap = Gap(offset=LIMIT, length=len(NUMBERS) - LIMIT, reason=GapReason.LIMIT)
    assert (result.output, result.gaps, result.exit_code) == (NUMBERS[:LIMIT], (gap,), 0)
    assert result.job.output_limit == limit
    assert result.job.end is not None
    assert (result.job.end.output_bytes, result.job.end.output_dropped_bytes) == (gap.end, gap.length)


def test_the_last_lines(server: Server) -> None:
    """They are found however long the output is, and its chunks have their offsets in all of it."""
    certificate = server.client("alice")
    with Client(
        server.address, ca=server.authority.certificate, cert=certificate.certificate, key=certificate.key
    ) as client:
        limit = OutputLimit(size=LIMIT, policy=OverflowPolicy.KEEP_LAST)
        job = client.run(["seq", "100000"], output_limit=limit).job
        stream = client.stream(job.id, tail=3)
        chunks = list(stream)
        every = client.stream(job.id)
        kept = b"".join(chunk.data for chunk in every)
    assert b"".join(chunk.data for chunk in chunks) == b"99998\n99999\n100000\n"
    assert chunks[0].offset == len(NUMBERS) - len(b"99998\n99999\n100000\n")
    assert (stream.gaps, stream.offset) == ([], len(NUMBERS))
    first = job.end.output_first_offset if job.end else 0
    assert first > 0
    assert kept == NUMBERS[first:]
    assert every.gaps == [Gap(offset=0, length=first, reason=GapReason.TRIMMED)]


async def test_a_limit_that_stops(server: Server) -> None:
    """The cause says it, and no more than the limit is kept."""
    async with client_of(server) as client:
        result = await client.run(["yes"], output_limit=OutputLimit(size=LIMIT, policy=OverflowPolicy.STOP))
    assert result.job.end is not None
    assert result.job.end.cause is Cause.OUTPUT_LIMIT
    assert result.output == b"y\n" * (LIMIT // 2)


async def test_offset_and_tail_exclude_each_other(server: Server) -> None:
    """It is refused before anything is sent."""
    async with client_of(server) as client:
        with pytest.raises(InvalidArgumentError):
            client.stream("any", 5, tail=1)
